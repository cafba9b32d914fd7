"""One process at a time in a folder; the kernel frees it when the process ends, however it ends."""

import atexit
import contextlib
import datetime
import os
import pathlib
import shlex
import socket
import sys
import warnings
from typing import BinaryIO

from memr1_jax.errors import UserError
from memr1_jax.run.files import cannot_write

FILE = "run.lock"
_HELD: dict[pathlib.Path, BinaryIO] = {}


def hold(folder: pathlib.Path) -> None:
    """Takes a folder for this process, which may already have it, until `release` or its end.

    The lock is advisory (flock), so it works on a network file system as far as that supports it;
    where there are no locks at all, a warning says so.

    Raises:
        UserError: another process has the folder; the message names it.
    """
    if folder in _HELD:
        return
    path = folder / FILE
    while True:
        try:
            file = open(path, "a+b", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            locked = _lock(file)
        except BlockingIOError:
            holder = _holder(file)
            file.close()
            raise UserError(
                f"The folder {folder} is in use by another run{holder}. Wait until it ends, or give"
                " --output another folder."
            ) from None
        if not locked or _same_file(file, path):
            break
        file.close()  # The one who had it has just removed it.
    _HELD[folder] = file
    atexit.register(release, folder)
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(_description().encode("utf-8", "replace"))


def release(folder: pathlib.Path) -> None:
    """Frees a folder, if this process has it, and removes the file of the lock."""
    file = _HELD.pop(folder, None)
    if file is not None:
        with contextlib.suppress(OSError):
            if _same_file(file, folder / FILE):
                (folder / FILE).unlink()
        file.close()


def _lock(file: BinaryIO) -> bool:
    """Locks a file without waiting; False where there are no locks, BlockingIOError if taken."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError) as error:
        warnings.warn(
            f"{file.name} cannot be locked on this system ({error}), so nothing keeps a second run"
            " out of the folder.",
            stacklevel=3,
        )
        return False
    return True


def _same_file(file: BinaryIO, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _holder(file: BinaryIO) -> str:
    try:
        file.seek(0)
        text = file.read(4000).decode("utf-8", "replace").strip()
    except OSError:
        text = ""
    return f": {text}" if text else ""


def _description() -> str:
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    command = shlex.join(sys.orig_argv)
    return f"process {os.getpid()} on {socket.gethostname()} since {since}, {command}"
