"""Checksums of a folder's files: a damaged one is noticed before it is used."""

import hashlib
import json
import os
import pathlib

from memr1_jax.run.files import write_json_atomic

FILE = "checksums.json"


def file_digest(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file in hexadecimal; OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: str | os.PathLike) -> None:
    """Writes `checksums.json`, which lists every file in the subfolders of `folder`.

    Files at the top of the folder are left out: they may still be written.
    """
    folder = pathlib.Path(folder)
    files = sorted(path for path in folder.glob("*/**/*") if path.is_file())
    sums = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    write_json_atomic(folder / FILE, sums)


def has_checksums(folder: str | os.PathLike) -> bool:
    """Tells whether the folder lists its files."""
    return (pathlib.Path(folder) / FILE).is_file()


def damaged_file(folder: str | os.PathLike, part: str = "") -> str | None:
    """Returns the first file that differs from the list, or None where none does.

    Args:
        folder: with a list from `write_checksums`.
        part: only files whose path in the folder begins so.
    """
    folder = pathlib.Path(folder)
    try:
        sums = json.loads((folder / FILE).read_bytes())
        chosen = {name: wanted for name, wanted in sums.items() if name.startswith(part)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return FILE
    if not chosen:
        return FILE
    for name, wanted in chosen.items():
        try:
            if file_digest(folder / name) != wanted:
                return name
        except (OSError, ValueError):
            return name
    return None
