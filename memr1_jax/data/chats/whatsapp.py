"""Reads WhatsApp's text export, as phones of many languages write it.

A message begins with a date and a time, in brackets or before a dash; lines without them continue
it. The whole file tells the order of day and month: dates exist and time does not run backwards.
Placeholders of pictures and the like stand in angle brackets, or begin with a left-to-right mark,
whatever the language.
"""

import datetime
import itertools
import os
import re
from collections.abc import Iterator, Sequence

from memr1_jax.data.chats.exported_chat import EMPTY, Chat, Said
from memr1_jax.data.nodes import open_text
from memr1_jax.data.notes import Note

NAME = "WhatsApp's text export"
AMBIGUOUS = "dates that can be read with the day or the month first; the day is taken to be first"
_MARK = "\u200e"
_SPACES = str.maketrans({"\u202f": " ", "\xa0": " "})
_HEAD = re.compile(
    r"\u200e*\[?(?P<date>[0-9]{1,4}([./-])[0-9]{1,2}\2[0-9]{2,4})\.?,?\s+"
    r"(?P<hour>[0-9]{1,2})[:.](?P<minute>[0-9]{2})(?:[:.](?P<second>[0-9]{2}))?"
    r"(?:\s*(?P<half>[ap])\.?\s?m\.?)?(?:\]\s|\s[-–]\s)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_PLACEHOLDER = re.compile(rf"{_MARK}.*|<[^<>]*>|null", re.DOTALL)
_EDITED = re.compile(rf"\s*{_MARK}?<This message was edited>$")
_LONGEST_NAME = 100


def fits(line: str) -> bool:
    """Tells whether a file's first line is of this form."""
    return _HEAD.match(line.translate(_SPACES)) is not None


def read(path: str | os.PathLike, notes: list[Note]) -> Iterator[Chat]:
    """Reads the chat of a file."""
    heads: list[re.Match] = []
    texts: list[list[str]] = []  # of each message its lines
    with open_text(path) as file:
        for line in file:
            head = _HEAD.match(line.translate(_SPACES))
            if head:
                heads.append(head)
                texts.append([head["rest"]])
            elif texts:
                texts[-1].append(line)
    times = _times(heads, str(path), notes)
    said = []
    for number, (lines, time) in enumerate(zip(texts, times, strict=True), 1):
        name, colon, text = "".join(lines).partition(": ")
        if not colon or len(name) > _LONGEST_NAME or "\n" in name:
            continue  # a notice, which nobody said
        text = _EDITED.sub("", text.strip())
        if not text or _PLACEHOLDER.fullmatch(text):
            notes.append(Note(EMPTY, f"{path}, message {number}"))
            continue
        said.append(Said(name.strip(f"{_MARK}~ "), text.replace(_MARK, ""), time))
    yield Chat("whatsapp", tuple(said), str(path))


def _times(heads: Sequence[re.Match], place: str, notes: list[Note]) -> list[str]:
    """Reads the times of all messages; days that do not exist have none."""
    readings = [[_moment(head, day_first) for head in heads] for day_first in (True, False)]
    wrong = [
        (reading.count(None), sum(a > b for a, b in itertools.pairwise(filter(None, reading))))
        for reading in readings
    ]
    if wrong[0] == wrong[1] and readings[0] != readings[1]:
        slashes = "/" in heads[0]["date"]
        american = slashes and any(head["half"] for head in heads)
        if slashes and not american:
            notes.append(Note(AMBIGUOUS, place, heads[0]["date"]))
        chosen = readings[american]
    else:
        chosen = readings[wrong[1] < wrong[0]]
    return [time.isoformat() if time else "" for time in chosen]


def _moment(head: re.Match, day_first: bool) -> datetime.datetime | None:
    first, second, third = (int(part) for part in re.split("[./-]", head["date"]))
    if first > 31:
        year, month, day = first, second, third
    else:
        year = third + 2000 * (third < 100)
        day, month = (first, second) if day_first else (second, first)
    hour, minute, second = (int(head[name] or 0) for name in ("hour", "minute", "second"))
    if head["half"]:
        hour = hour % 12 + 12 * (head["half"].lower() == "p")
    try:
        return datetime.datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
