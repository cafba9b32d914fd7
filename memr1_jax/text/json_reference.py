"""The language of `json_scanner` in plain Python, on top of the standard json module."""

import json
import re
from typing import NamedTuple

from memr1_jax.text.events import Event
from memr1_jax.text.plain import folded

_SPACE = " \t\n\r"
_EVENTS = {event.name: event for event in Event} | {"NOOP": Event.NONE}


class _Object(list):
    """The pairs of a JSON object, in their order."""


class _Number(str):
    """The digits of a number, so that huge ones stay exact."""


class ReferenceScan(NamedTuple):
    """What `json_scanner.scan_operations` reports, with texts as strings."""

    operations: list[tuple[Event, int, str]]
    valid: bool
    strict: bool
    none: int = 0
    skipped: int = 0
    dropped: int = 0


def _refuse(constant: str):
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Object, parse_int=_Number, parse_float=_Number, parse_constant=_refuse
)


def _is_flat(pairs) -> bool:
    return isinstance(pairs, _Object) and not any(isinstance(value, list) for _, value in pairs)


def _decode(text: str, start: int) -> tuple[_Object | None, int]:
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start


def _memory_lists(pairs: _Object) -> list | None:
    """The values of `memory` in an object of the full schema, None if it breaks the schema."""
    lists = [value for key, value in pairs if key == "memory"]
    others = _Object(pair for pair in pairs if pair[0] != "memory")
    sound = _is_flat(others) and all(
        type(entries) is list and all(map(_is_flat, entries)) for entries in lists
    )
    return lists if sound else None


def _read_entry(pairs: _Object) -> tuple[Event, int, str] | None:
    """The operation of an entry, None if it must be skipped."""
    values = {"op" if key == "event" else key: value for key, value in pairs}
    name, number, text = values.get("op"), values.get("id"), values.get("text")
    event = _EVENTS.get(name.upper()) if isinstance(name, str) else None
    known = isinstance(number, str) and re.fullmatch("[0-9]{1,9}", number)
    slot = int(number) if known else -1
    if event is None:
        return None
    if event in (Event.ADD, Event.UPDATE):
        if type(text) is not str or not text:
            return None
    else:
        text = ""
    if event in (Event.UPDATE, Event.DELETE) and slot < 0:
        return None
    return event, slot, folded(text)


def scan_operations_reference(text: str | bytes, max_operations: int) -> ReferenceScan:
    """Read the manager's response; the rules are those of `json_scanner`.

    Bytes are decoded with U+FFFD for what is no UTF-8; a lone surrogate escape becomes U+FFFD.
    White space in texts is folded: one space for each run, none at the end.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    start = text.find("{")
    first, end = _decode(text, start) if start >= 0 else (None, 0)
    if first is None:
        return ReferenceScan([], valid=False, strict=False)
    strict = not text[:start].strip(_SPACE)

    if any(key == "memory" for key, _ in first):
        lists = _memory_lists(first)
        if lists is None:
            return ReferenceScan([], valid=False, strict=False)
        entries = lists[-1]
        strict = strict and not text[end:].strip(_SPACE)
    else:
        entries = []
        pairs = first
        while pairs is not None and _is_flat(pairs):
            entries.append(pairs)
            rest = text[end:].lstrip(_SPACE + ",")
            start = len(text) - len(rest)
            pairs, end = _decode(text, start) if rest.startswith("{") else (None, start)
        strict = strict and not text[start:]
        if not entries:
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
    )
