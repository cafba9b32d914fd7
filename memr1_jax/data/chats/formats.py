"""Finds out which program wrote a file of chats, and reads it."""

import contextlib
import itertools
import os
from collections.abc import Iterator

from memr1_jax.data.chats import chatgpt, memorybank, messages, sharegpt, telegram, whatsapp
from memr1_jax.data.chats.exported_chat import Chat
from memr1_jax.data.nodes import Node, open_text, read_array, read_json, read_lines
from memr1_jax.data.notes import Note, tell
from memr1_jax.errors import UserError

_PEEK = 1 << 12  # characters
_JSON = (messages, sharegpt, chatgpt, telegram, memorybank)
FORMATS = ", ".join(reader.NAME for reader in (*_JSON, whatsapp))


def read_chats(path: str | os.PathLike) -> Iterator[Chat] | None:
    """Reads the chats of a file; None where no format that is known here fits it.

    Messages that are left out are reported in one warning at the end.

    Raises:
      UserError: the file cannot be read, or a part of it is not of its format.
    """
    notes: list[Note] = []
    if whatsapp.fits(_first_line(path)):
        return _told(path, whatsapp.read(path, notes), notes)
    records = records_of(path)
    first = next(records, None)
    if first is None:
        return None
    for reader in _JSON:
        if reader.fits(first.value):
            chats = reader.read(itertools.chain([first], records), notes)
            return _told(path, chats, notes)
    return None


def records_of(path: str | os.PathLike) -> Iterator[Node]:
    """Reads the records of a file: a JSON array, JSON lines, or one object over several lines.

    Raises:
      UserError: it is none of these.
    """
    line = _first_line(path).strip()
    if line.startswith("["):
        return read_array(path)
    return iter([read_json(path)]) if line == "{" else read_lines(path)


def none_fits(path: str | os.PathLike) -> UserError:
    """Returns the error for a file of another format."""
    return UserError(
        f"{path} is in none of the formats that are read here: {FORMATS}, or one's own dialogues"
        " (experiments/README.md). Convert it to one of them."
    )


def _first_line(path: str | os.PathLike) -> str:
    """Returns the first line that is not blank, or the beginning of a long one."""
    with open_text(path) as file:
        for line in iter(lambda: file.readline(_PEEK), ""):
            if line.strip():
                return line
    return ""


def _told(path: str | os.PathLike, chats: Iterator[Chat], notes: list[Note]) -> Iterator[Chat]:
    with contextlib.closing(chats):
        for chat in chats:
            if chat.messages:
                yield chat
    tell(path, notes)
