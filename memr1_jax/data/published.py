"""Finds and fetches the files of published data sets, and identifies them by sha256."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from memr1_jax.data.hub import local_path
from memr1_jax.errors import UserError
from memr1_jax.run.checksums import file_digest
from memr1_jax.run.download import cache_folder, download

UNKNOWN = "unknown"
PathLike = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class Edition:
    """A known version of a file; `counts` are what a loader must find in it."""

    name: str
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file of a data set, and where the public gets it.

    Attributes:
      title: what the data set is called in messages.
      name: of the file.
      editions: by sha256; the first one is the published file.
      home: "published by" whom and where; or how it was made, if it is not the publication's own.
      licence: as stated there.
      url: its direct address; empty where there is none.
      flag: the option that names a local copy.
      marks: texts that tell the data set from others in its format, such as its ids; a file with
        none of them does not claim to be the data set. Empty: every file does.
    """

    title: str
    name: str
    editions: Mapping[str, Edition]
    home: str
    licence: str
    url: str = ""
    flag: str = "--data_path"
    marks: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """The digest of the published file."""
        return next(iter(self.editions))

    @property
    def advice(self) -> str:
        """A sentence that says where to get the file, and where it belongs."""
        source = f", from {self.url}" if self.url else ""
        return (
            f"Get {self.name} (sha256 {self.sha256}), {self.home} under {self.licence}{source}, "
            f"and name it with {self.flag} or put it into {cache_folder()}."
        )


@dataclasses.dataclass(frozen=True)
class Found:
    """A file on the disk: its edition or `UNKNOWN`, and its sha256."""

    path: Path
    edition: str
    sha256: str
    counts: Mapping[str, int]  # of a known edition; empty where they are not known


def find(file: PublishedFile, path: str | os.PathLike | None = None, strict: bool = False) -> Found:
    """Returns the checked file: at `path`, else in the cache, else downloaded there.

    Args:
      file: what is looked for.
      path: a local copy, or a folder that holds it under its published name; see `hub.local_path`.
      strict: whether a file of unknown content is an error. Otherwise it is a warning, unless the
        file has none of the data set's `marks`.

    Raises:
      UserError: nothing is there, the download fails, or `strict` refuses the file.
    """
    if path:
        path = _given(file, local_path(path))
    else:
        path = cache_folder() / file.name
        if not path.is_file():
            if not file.url:
                raise UserError(f"{file.title} is not in {path.parent}. {file.advice}")
            download(file.url, path, file.sha256, file.title, file.advice)
    found = identify(file, path)
    if found.edition == UNKNOWN:
        message = (
            f"{path} is not a known edition of {file.title}: its sha256 is {found.sha256}, that "
            f"of the published file is {file.sha256}. Scores on it may not compare with published "
            "ones."
        )
        if strict:
            raise UserError(f"{message} {file.advice}")
        if _claimed(file, path):
            warnings.warn(message, stacklevel=2)
    return found


def _claimed(file: PublishedFile, path: Path) -> bool:
    """Tells whether a file claims to be the data set, and is not merely in its format."""
    if not file.marks:
        return True
    content = path.read_bytes()
    return any(mark.encode() in content for mark in file.marks)


def _given(file: PublishedFile, path: Path) -> Path:
    """Finds the file that a user named, by itself or by its folder."""
    if path.is_dir():
        named = path / file.name
        if not named.is_file():
            there = sorted(
                p.name for p in path.iterdir() if p.suffix in (".json", ".jsonl", ".csv")
            )
            others = f", only {', '.join(there[:10])}" if there else ""
            raise UserError(
                f"The folder {path}, to which {file.flag} points, holds no {file.name}{others}."
                f" Name the file itself. {file.advice}"
            )
        return named
    if not path.is_file():
        raise UserError(f"There is no file at {path}, where {file.flag} points. {file.advice}")
    return path


def identify(file: PublishedFile, path: str | os.PathLike) -> Found:
    """Identifies the edition of `file` at `path`."""
    sha256 = file_digest(path)
    edition = file.editions.get(sha256, Edition(UNKNOWN))
    return Found(Path(path), edition.name, sha256, edition.counts)
