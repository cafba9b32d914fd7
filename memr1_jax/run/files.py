"""Files of a run: written whole or not at all, in a folder whose contents can be told."""

import contextlib
import fnmatch
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Collection
from typing import Any, BinaryIO

from memr1_jax.errors import UserError
from memr1_jax.options import user_path

# No caches, found by a digest of all they depend on: replies, verdicts, compiled programs.
RUN_MARKS = (
    *("metrics.jsonl", "checkpoints/*", "training_banks.safetensors"),
    *("evaluation_*.json", "predictions_*.jsonl", "export/*", "rows/*", "results.json"),
    *("measured.json", "report.json", "model/*"),
)
_OWN = (  # what the commands write
    *("metrics.jsonl", "checkpoints", "run.json", "run.lock"),
    *("flags.txt", "tensorboard", "samples", "export", "training_banks*", "reward.png"),
    *("evaluation_*", "predictions_*", "replay_*", "report.*", "dialogues*", "settings.json"),
    *("replies.sqlite*", "results.*", "rows", "verdicts.jsonl", "table.md", "options.json"),
    *("compiled", "untaught", "model", "timing.md", "measured.json"),
    *("trackers.json", "wandb", "mlflow.db*", "mlartifacts"),
)
_SYSTEM = (
    *("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr/bin"),
    *("/usr/include", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/sbin"),
    *("/usr/share", "/System", "/Library"),
)
_CROWDED = ("/dev", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr")
_CROWDED += ("/usr/local", "/var", "/Users", "/Volumes")


def write_bytes_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file so that readers see the old or the new one whole, even after a crash.

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
    """Writes a UTF-8 text file whole or not at all; half surrogates in it become U+FFFD."""
    write_bytes_atomic(path, whole_characters(text).encode("utf-8"))


def whole_characters(text: str) -> str:
    """Joins surrogate pairs, and replaces halves without their other half by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def write_json_atomic(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all; ValueError for NaN and infinity."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def append_whole(file: BinaryIO, data: bytes) -> None:
    """Appends bytes to a file that was opened without a buffer; all of them, or none.

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
    """Says that a file could not be written, and what to do."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UserError(
        f"{path} could not be written ({reason.splitlines()[0]}). Make room on the disk or check"
        " the rights of the folder. What was written before is intact: give the same command"
        " again, with --resume where it has this flag."
    )


# Errors that reading a damaged JSON file may raise, by the time its values are used.
DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
DAMAGE += (RecursionError,)


def prepare_run_folder(path: str | os.PathLike, resume: bool) -> pathlib.Path:
    """Creates the folder of a run, or checks that an existing one may be used.

    Args:
        path: the folder; missing parents are created.
        resume: whether a run that the folder already holds is resumed. An empty folder is fine then
            too: a run may have been stopped before its first step.

    Returns:
        The folder as an absolute path.

    Raises:
        UserError: the path is a file or a folder of the system, cannot be written, holds files that
            are not of a run, or holds a run and `resume` is off.
    """
    folder = user_path(path).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"The run folder {folder} is a file. Give --output the name of a folder that does not"
            " exist yet, or of an empty one."
        )
    _refuse_system(folder, "run folder", "output")
    if folder.is_dir() and (other := _foreign(folder)):
        raise UserError(
            f"The folder {folder} holds {other}, which no run has written. Give --output the name"
            " of a folder that does not exist yet, or of an empty one."
        )
    _check_writable(folder, "run folder", "output")
    if not resume and holds_run(folder):
        raise UserError(
            f"The folder {folder} already holds a run. Add --resume to continue it, --overwrite to"
            " move it aside, or give --output another folder."
        )
    return folder


def writable_file(path: str | os.PathLike, flag: str = "output") -> pathlib.Path:
    """Checks that a file may be written, and creates the folders above it.

    Raises:
        UserError: the path is a folder, or its folder is of the system or cannot be written.
    """
    file = user_path(path).absolute()
    if file.is_dir():
        raise UserError(f"--{flag}={path} is a folder. Give the name of a file.")
    _refuse_system(file.parent, "folder", flag)
    _check_writable(file.parent, "folder", flag)
    return file


def _refuse_system(folder: pathlib.Path, what: str, flag: str) -> None:
    """Raises UserError for a folder that is the system's, or that everything else is in."""
    real, home = folder.resolve(), os.path.expanduser("~")
    crowded = (real.root, *_CROWDED, home, tempfile.gettempdir())
    below = any(real.is_relative_to(system) for system in _SYSTEM)
    if below or str(real) in crowded:
        raise UserError(
            f"The {what} {folder} cannot be written: it is a folder of the system or of all your"
            f" files. Give --{flag} a folder below one of your own."
        )


def _check_writable(folder: pathlib.Path, what: str, flag: str) -> None:
    """Creates a folder and writes a file into it; UserError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_test.{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise UserError(
            f"The {what} {folder} cannot be written ({getattr(error, 'strerror', '') or error})."
            f" Give --{flag} a folder in which you may create files."
        ) from error


def _foreign(folder: pathlib.Path) -> str:
    """Names a file that shows that a folder is not one of ours; "" where there is none.

    Logs and hidden files say nothing, and next to files of a run others are the user's business.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return ""
    if any(fnmatch.fnmatch(name, pattern) for name in names for pattern in _OWN):
        return ""
    silent = (".*", "*.log", "*.txt", "*.out", "*.err")
    others = [n for n in names if not any(fnmatch.fnmatch(n, pattern) for pattern in silent)]
    return others[0] if others else ""


def holds_run(folder: pathlib.Path, marks: Collection[str] = RUN_MARKS) -> bool:
    """Tells whether a folder holds anything that a run made: a step, a figure, a model."""
    found = (path for mark in marks for path in folder.glob(mark))
    return any(path.is_dir() or path.stat().st_size for path in found)


def _sync_folder(folder: pathlib.Path) -> None:
    """Makes a rename survive a power cut, where the system lets a folder be opened."""
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
