"""Files of a run: written whole or not at all, in a folder whose contents can be told."""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Collection
from typing import Any, BinaryIO

from memr1_jax.errors import UserError

# Not what is found by a digest of all that it depends on: replies, verdicts, compiled programs.
RUN_MARKS = (
    *("metrics.jsonl", "checkpoints/*", "training_banks.safetensors"),
    *("evaluation_*.json", "predictions_*.jsonl", "export/*", "rows/*", "results.json"),
    *("measured.json", "report.json", "model/*"),
)


def write_bytes_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Write a file so that readers, and a machine that dies, see the old or the new one whole.

    The bytes go to a temporary name in the same folder, reach the disk, and take the final name.
    A missing folder is made.

    Raises:
        UserError: the disk or the rights of the folder refuse it; the old file is still there.
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
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


def append_whole(file: BinaryIO, data: bytes) -> None:
    """Append bytes to a file that was opened without a buffer; all of them, or none.

    Raises:
        UserError: the disk refuses it. A process that dies meanwhile may leave a part.
    """
    end = file.seek(0, os.SEEK_END)
    try:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise cannot_write(file.name, error) from error


def cannot_write(path: str | os.PathLike, error: Exception) -> UserError:
    """Say that a file could not be written, and what to do."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UserError(
        f"{path} could not be written ({reason.splitlines()[0]}). Make room on the disk or check"
        " the rights of the folder. What was written before is intact: give the same command"
        " again, with --resume where it has this flag."
    )


# What reading a damaged file of JSON may raise, by the time its values are used.
DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
DAMAGE += (RecursionError,)


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
    if not resume and holds_run(folder):
        raise UserError(
            f"The folder {folder} already holds a run. Add --resume to continue it, --overwrite to"
            " move it aside, or give --output another folder."
        )
    return folder


def holds_run(folder: pathlib.Path, marks: Collection[str] = RUN_MARKS) -> bool:
    """Say whether a folder holds anything that a run made: a step, a figure, a model."""
    found = (path for mark in marks for path in folder.glob(mark))
    return any(path.is_dir() or path.stat().st_size for path in found)


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
