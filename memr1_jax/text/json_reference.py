"""The language of `json_scanner` in plain Python, on top of the standard json module."""

import json
import re
from typing import NamedTuple

from memr1_jax.text.events import SPELLINGS, Event
from memr1_jax.text.plain import folded
from memr1_jax.text.reasoning import after_reasoning

_SPACE = " \t\n\r"


class _Number(str):
    """The digits of a number, so that huge ones stay exact."""


class ReferenceScan(NamedTuple):
    """The report of `json_scanner.scan_operations`, with texts as strings."""

    operations: list[tuple[Event, int, str]]
    valid: bool
    strict: bool
    none: int = 0
    skipped: int = 0
    dropped: int = 0
    salvaged: bool = False


def _refuse(constant: str):
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
_Pairs = list[tuple[str, object]]


class _Fault(Exception):
    """An object is broken, or the text ends within it."""


class _Reader:
    """Reads flat objects and memory lists from a place in a text, up to the first fault."""

    def __init__(self, text: str):
        self.text, self.place = text, 0
        self.opened = False  # whether the object has a key and its colon; else it is prose
        self.entries: list[_Pairs] | None = None  # those of the latest memory list

    def read_object(self, lists: bool = False) -> _Pairs:
        """Reads a flat object; with `lists` a key `memory` begins a list of such objects."""
        self.opened = False
        pairs: _Pairs = []
        self._take("{")
        if self._next() == "}":
            self._take("}")
            return pairs
        while True:
            key = str(self._scalar('"'))
            self._take(":")
            self.opened = True
            if lists and key == "memory":
                self._list()
            else:
                pairs.append((key, self._scalar('"-0123456789tfn')))
            if self._take(",}") == "}":
                return pairs

    def _list(self) -> None:
        self._take("[")
        self.entries = []
        if self._next() == "]":
            self._take("]")
            return
        while True:
            self.entries.append(self.read_object())
            if self._take(",]") == "]":
                return

    def _next(self) -> str:
        """Passes over white space."""
        while self.text[self.place : self.place + 1] in [*_SPACE]:
            self.place += 1
        return self.text[self.place : self.place + 1]

    def _take(self, characters: str) -> str:
        found = self._next()
        if not found or found not in characters:
            raise _Fault
        self.place += 1
        return found

    def _scalar(self, begins: str) -> object:
        if not self._next() or self._next() not in begins:
            raise _Fault
        try:
            value, self.place = _DECODER.raw_decode(self.text, self.place)
        except ValueError as error:
            # The place of the fault, as far as lines and braces are concerned.
            self.place = getattr(error, "pos", self.place)
            raise _Fault from error
        return value


def _read_entry(pairs: _Pairs) -> tuple[Event, int, str] | None:
    """Returns the operation of an entry, None if it must be skipped."""
    values = {"op" if key == "event" else key: value for key, value in pairs}
    name, number, text = values.get("op"), values.get("id"), values.get("text")
    event = SPELLINGS.get(name.lower()) if type(name) is str else None
    known = isinstance(number, str) and re.fullmatch("[0-9]{1,9}", number)
    slot = int(known[0]) if known else -1
    if event is None or (event.names_memory and slot < 0):
        return None
    if not event.writes:
        return event, slot, ""
    if type(text) is not str or not text.strip():
        return None
    return event, slot, folded(text)


def scan_operations_reference(
    text: str | bytes, max_operations: int, salvage: bool = False
) -> ReferenceScan:
    """Reads the manager's response; the rules are those of `json_scanner`.

    Bytes that are not UTF-8 are decoded as U+FFFD; a lone surrogate escape becomes U+FFFD.
    White space in texts is folded: one space for each run, none at the end.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = after_reasoning(text)
    entries, strict, broken = _entries(text, salvage)
    if entries is None:
        return ReferenceScan([], valid=False, strict=False)
    read = [_read_entry(pairs) for pairs in entries]
    operations = [entry for entry in read if entry and entry[0] != Event.NONE]
    return ReferenceScan(
        operations[:max_operations],
        valid=True,
        strict=strict,
        none=sum(entry is not None and entry[0] == Event.NONE for entry in read),
        skipped=read.count(None),
        dropped=max(len(operations) - max_operations, 0),
        salvaged=broken,
    )


def _entries(text: str, salvage: bool) -> tuple[list[_Pairs] | None, bool, bool]:
    """Returns the entries, None of an invalid response; whether it is strict, and broken."""
    found: list[_Pairs] = []
    reader, broken = _Reader(text), False
    place = text.find("{")
    strict = not text[: max(place, 0)].strip(_SPACE)
    while place >= 0:
        reader.place = place
        try:
            pairs = reader.read_object(lists=not found)
        except _Fault:
            strict = False
            if reader.entries is not None:
                return (reader.entries or None) if salvage else None, False, True
            if not found and not reader.opened:  # prose
                place = text.find("{", max(reader.place, place + 1))
                continue
            broken = True
            if found and not salvage:
                break
            line = text.find("\n{", reader.place)
            place = line + 1 if line >= 0 else -1
            continue
        if reader.entries is not None:
            return reader.entries, strict and not text[reader.place :].strip(_SPACE), broken
        if not pairs and not found:  # an empty object says nothing
            strict, place = False, text.find("{", reader.place)
            continue
        found.append(pairs)
        rest = text[reader.place :].lstrip(_SPACE + ",")
        place = len(text) - len(rest)
        if not rest.startswith("{"):
            strict = strict and not rest
            break
    return found or None, strict, broken
