"""Files of a run: written whole or not at all, in a folder that belongs to one run."""

import json
import os
import pathlib
import uuid
from typing import Any

from memr1_jax.errors import UserError

_RUN_MARKS = ("metrics.jsonl", "checkpoints")


def write_bytes_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Write a file so that readers, and a machine that dies, see the old or the new one whole.

    The bytes go to a temporary name in the same folder, reach the disk, and take the final name.
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_text_atomic(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; half surrogates in it become U+FFFD."""
    write_bytes_atomic(path, whole_characters(text).encode("utf-8"))


def whole_characters(text: str) -> str:
    """Join surrogate pairs, and put U+FFFD in the place of halves without their other half."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def write_json_atomic(path: str | os.PathLike, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all; ValueError for NaN and infinity."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def prepare_run_folder(path: str | os.PathLike, resume: bool) -> pathlib.Path:
    """Create the folder of a run, or check that an existing one may be used.

    Args:
        path: the folder; missing parents are created.
        resume: whether a run that the folder already holds goes on. An empty folder is fine then
            too: a run may have been stopped before its first step.

    Returns:
        The folder as an absolute path.

    Raises:
        UserError: the path is a file, cannot be written, or holds a run and `resume` is off.
    """
    folder = pathlib.Path(path).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"The run folder {folder} is a file. Give --output the name of a folder that does not"
            " exist yet, or of an empty one."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_test.{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"The run folder {folder} cannot be written ({error.strerror or error})."
            " Give --output a folder in which you may create files."
        ) from error
    if not resume and _holds_run(folder):
        raise UserError(
            f"The folder {folder} already holds a run. Add --resume to go on with it, or give"
            " --output another folder."
        )
    return folder


def _holds_run(folder: pathlib.Path) -> bool:
    for mark in (folder / name for name in _RUN_MARKS):
        if mark.is_dir() and any(mark.iterdir()):
            return True
        if mark.is_file() and mark.stat().st_size:
            return True
    return False


def _sync_folder(folder: pathlib.Path) -> None:
    """Make a rename survive a power cut, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
