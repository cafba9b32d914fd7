"""Fetches a file from the network: resumed where it was cut, checked before it is there.

pooch does not resume, huggingface_hub fetches from its hub, and filelock leaves its files behind.
"""

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from memr1_jax.errors import UserError
from memr1_jax.options import user_path

PAUSES = (1.0, 2.0, 4.0)  # seconds before the second, third and last try
TIMEOUT = 60.0  # seconds of silence
_CHUNK = 1 << 16
_WORTH_ANOTHER_TRY = (408, 429)  # of the answers 400 to 499, which else will not change

T = TypeVar("T")


def cache_folder() -> Path:
    """Returns the folder for downloads and conversions: `MEMR1_CACHE`, or ~/.cache/memr1_jax."""
    return user_path(os.environ.get("MEMR1_CACHE") or "~/.cache/memr1_jax")


def download(url: str, path: Path, sha256: str, description: str, advice: str) -> None:
    """Fetches `url` to `path`, which never holds a partial or wrong file.

    An existing file is left as it is. Bytes that arrived stay in `<path>.part` for the next call,
    which asks for the rest with a Range request (RFC 9110, section 14) and starts over where the
    server cannot serve that. A lock on that file (flock, so POSIX systems only) makes a second
    process wait for the first and then find its result.

    Args:
      url: an http, https or file address.
      path: the file to be; its folder is made.
      sha256: the digest in hexadecimal that the file must have.
      description: names the file in the progress bar, which is drawn on stderr, and in errors.
      advice: whole sentences that end every error: what the user can do instead.

    Raises:
      UserError: the network (after four tries) or the disk fails, or the content has another
        digest, in which case it is removed.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part) as file:
            if path.exists():
                file.truncate(0)
                return
            if _digest(file) != sha256:  # an earlier call may have ended just before the rename
                _fetch(url, file, description)
            found = _digest(file)
            if found != sha256:
                file.truncate(0)
                raise UserError(
                    f"{url} delivered a file with sha256 {found} where {sha256} is expected, so "
                    f"it was removed. {advice}"
                )
            os.fsync(file.fileno())
            part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        kept = f" What has arrived is kept in {part} for the next try."
        raise UserError(
            f"{description} could not be stored at {path} from {url}: {error}."
            f"{kept if os.path.exists(part) else ''} {advice}"
        ) from error


def from_hub(
    repository: str,
    patterns: list[str],
    message: str,
    kind: str = "model",
    cache: str | os.PathLike | None = None,
) -> Path:
    """Returns the folder with those files of a Hugging Face repository that match the patterns.

    Cached files are found without a network.

    Args:
      repository: as owner/name.
      patterns: names of files, with * for any part.
      message: of the error; {} becomes what happened.
      kind: "model" or "dataset".
      cache: the folder for the files; by default the hub's own.

    Raises:
      UserError: the hub does not give them.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            repo_type=kind,
            allow_patterns=patterns,
            cache_dir=cache and Path(cache) / "hub",
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        told = f"the Hugging Face hub did not give it ({type(error).__name__})"
        raise UserError(message.format(told)) from error
    return Path(folder)


def retry(action: Callable[[], T]) -> T:
    """Returns what `action` returns, trying again after `PAUSES` while the network fails.

    Raises the error of the last try, or at once that of an answer which will not change (404).
    """
    for pause in PAUSES:
        try:
            return action()
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in _WORTH_ANOTHER_TRY:
                raise
        except (OSError, http.client.HTTPException):
            pass  # an error of the disk too: the reports of the two are not told apart
        time.sleep(pause)
    return action()


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Opens the file to append to, ours alone; removes it if it is left empty."""
    import fcntl

    while True:
        with part.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # While we waited, its last owner may have renamed or removed it.
            if not _is_at(part, file):
                continue
            try:
                yield file
            finally:
                if file.seek(0, os.SEEK_END) == 0:
                    part.unlink()
            return


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(url: str, file: BinaryIO, description: str) -> None:
    from rich import console, progress

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn())
    columns += (progress.DownloadColumn(), progress.TransferSpeedColumn())
    columns += (progress.TimeRemainingColumn(),)
    # Not on stdout, where the bar would mix with what the program itself prints.
    with progress.Progress(*columns, console=console.Console(stderr=True)) as bar:
        task = bar.add_task(description, total=None)

        def receive() -> None:
            with _rest(url, file) as response:
                start = file.seek(0, os.SEEK_END)
                length = response.headers.get("Content-Length")
                total = None if length is None else start + int(length)
                bar.reset(task, total=total, completed=start)
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    bar.advance(task, len(chunk))
            # http.client takes a connection that ends early for the end of the file.
            if total is not None and file.tell() < total:
                raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")

        retry(receive)


def _rest(url: str, file: BinaryIO):
    """Asks for the rest of `file`, which is emptied where the answer is the whole."""
    start = file.seek(0, os.SEEK_END)
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if not start or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        file.truncate(0)
        return _rest(url, file)
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        file.truncate(0)
    return response
