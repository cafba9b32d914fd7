"""Folders that appear whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.options import user_path
from memr1_jax.run import json_files
from memr1_jax.run.checksums import file_digest
from memr1_jax.run.files import cannot_write

# Files of an exported agent's folder other than its model; see `agents/agent_folder.py`.
SETTINGS, RETRIEVAL = "memr1_jax.json", "retrieval.safetensors"
CHAT_EXAMPLES = "chat_examples.json"
ADAPTERS = "adapter_config.json"  # marks a folder of the peft library


@contextlib.contextmanager
def whole_folder(folder: str | os.PathLike, mark: str = "config.json") -> Iterator[Path]:
    """Yields an empty temporary sibling that takes the name `folder` when the block succeeds.

    A block that fails leaves `folder` as it was; a full disk is a UserError. An existing folder
    that has the file `mark` is of the same kind, and is replaced; anything else of that name is
    refused with a UserError, so that a slip of the keyboard deletes nothing.
    """
    target = user_path(folder).resolve()
    if target.exists() and not _replaceable(target, mark):
        kind = "a model folder" if mark == "config.json" else "a folder of the same kind"
        raise UserError(
            f"{target} exists and is not {kind} (it has no {mark}). "
            "Name another folder, or remove this one first."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise UserError(f"Cannot write into {target.parent}: {error.strerror}.") from error
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        yield new
        for file in new.iterdir():  # safetensors files are made readable by their owner alone
            file.chmod(new.stat().st_mode & 0o666)
        if target.exists():
            target.rename(old)
        new.rename(target)
    except BaseException as error:
        if (work / "old").exists() and not target.exists():
            (work / "old").rename(target)
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise cannot_write(target, error) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def folder_digest(folder: str | os.PathLike, start: str = "") -> str:
    """Returns a word for the weights and tokenizer of a model folder; `start` is part of it."""
    digest = hashlib.sha256(start.encode())
    for path in sorted(Path(folder).iterdir()):
        if path.name in (SETTINGS, RETRIEVAL, CHAT_EXAMPLES):  # options are compared as such
            continue
        if path.suffix in (".safetensors", ".json", ".model", ".jinja", ".txt"):
            digest.update(path.name.encode())
            digest.update(bytes.fromhex(file_digest(path)))
    return digest.hexdigest()[:32]


def own_file(folder: Path, name: str) -> Path | None:
    """Returns the path of a file of the folder, None where it has none of that name.

    A link that leaves the folder, other than into the contents that the hub's cache keeps next to
    it, is not a file of the folder: it may lead to anything. A warning names it.
    """
    path, root = folder / name, folder.resolve()
    if not path.is_file():
        return None
    roots = [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]
    if any(path.resolve().is_relative_to(root) for root in roots):
        return path
    warnings.warn(f"{path} is a link to a file outside, so it is not copied.", stacklevel=3)
    return None


def read_json(path: Path) -> dict:
    """Reads one JSON object from a file; a UserError names a file that holds anything else."""
    value = json_files.read_json(path, "Download it again.")
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold one JSON object, not a {type(value).__name__}.")
    return value


def write_json(path: Path, value: dict) -> None:
    """Writes one JSON object, indented, as UTF-8."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _replaceable(target: Path, mark: str) -> bool:
    if not target.is_dir():
        return False
    return (target / mark).is_file() or not any(target.iterdir())
