"""Data sets that are known by their published counts: the digests of their files were not known.

A user names a file, a folder, or `hf:OWNER/NAME`. The data are compared with the published counts,
and a part, or anything else, is never called by the name of the whole.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from memr1_jax.data.hub import local_path
from memr1_jax.data.notes import tell
from memr1_jax.data.published import Found, PathLike
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.run.checksums import file_digest

UNVERIFIED = "not known by a digest"


@dataclasses.dataclass(frozen=True)
class PublishedSet:
    """Describes a data set without known digests.

    Attributes:
      title: its name in tables and messages.
      name: the file or folder that `--data_path` is to name, or to hold.
      home: where the public gets it.
      licence: as stated there.
      counts: the counts that its publication states.
    """

    title: str
    name: str
    home: str
    licence: str
    counts: Mapping[str, int]

    @property
    def advice(self) -> str:
        """A sentence that says what to get, and from where."""
        return f"Get {self.name} from {self.home} ({self.licence}) and name it with --data_path."

    def find(self, path: PathLike | None, strict: bool = False) -> Path:
        """Returns the file or folder that a user named; UserError where there is none."""
        if not path:
            raise UserError(f"{self.title} needs --data_path. {self.advice}")
        found = local_path(path)
        if not found.exists():
            raise UserError(f"There is nothing at {found}, where --data_path points. {self.advice}")
        if strict:
            raise UserError(
                f"No digest of {self.title} is known, so {found} cannot be checked as strictly as"
                " was asked for; its counts are compared without that."
            )
        return found

    def named(self, counts: Mapping[str, int]) -> str:
        """Names what was read, with its size where that is not the published one."""
        for what, published in self.counts.items():
            if counts[what] != published:
                of = f" of {published:,}" if counts[what] < published else ""
                return f"{self.title}, {counts[what]:,}{of} {what}"
        return self.title


def files_in(path: Path, pattern: str, published: PublishedSet) -> list[Path]:
    """Returns the file itself, or the files of a folder that fit; UserError where none does."""
    if path.is_file():
        return [path]
    if found := sorted(path.rglob(pattern)):
        return found
    raise UserError(f"The folder {path} holds no {pattern}. {published.advice}")


def found_files(path: Path, files: Sequence[Path]) -> Found:
    """Describes what was read: a file with its digest, or a folder with one of all its files."""
    if list(files) == [path]:
        return Found(path, UNVERIFIED, file_digest(path), {})
    digests = "".join(file_digest(file) for file in files)
    return Found(path, UNVERIFIED, hashlib.sha256(digests.encode()).hexdigest(), {})


# Reads a path: conversations, and the files that they stand in.
Load = Callable[[Path], tuple[list[Conversation], Sequence[Path]]]


def load_set(
    published: PublishedSet, load: Load, path: PathLike | None, strict: bool
) -> tuple[Found, list[Conversation]]:
    """Reads a data set, and warns of what its reader left out or changed."""
    place = published.find(path, strict)
    conversations, files = load(place)
    if not conversations:
        raise UserError(f"{place} holds nothing of {published.title}. {published.advice}")
    tell(place, (note for conversation in conversations for note in conversation.notes))
    return found_files(place, files), conversations
