"""Folders that appear whole or not at all."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.options import user_path


@contextlib.contextmanager
def whole_folder(folder: str | os.PathLike, mark: str = "config.json") -> Iterator[Path]:
    """Yields an empty temporary sibling that takes the name `folder` when the block succeeds.

    A block that fails leaves `folder` as it was. An existing folder that has the file `mark` is of
    the same kind, and is replaced; anything else of that name is refused with a UserError, so that
    a slip of the keyboard deletes nothing.
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
    except BaseException:
        if (work / "old").exists() and not target.exists():
            (work / "old").rename(target)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_json(path: Path) -> dict:
    """Reads one JSON object from a file; a UserError names a file that holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Download it again.") from error
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
