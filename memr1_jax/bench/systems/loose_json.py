"""Reads JSON as language models write it: in code fences, after a preface, or broken off.

json-repair and jiter guess more: half a string or an incomplete number would become a fact.
"""

import collections
import enum
import json
import re
from typing import Any

from memr1_jax.bench.systems.protocol import Reply
from memr1_jax.run.json_files import with_whole_escapes
from memr1_jax.text.plain import one_line
from memr1_jax.text.reasoning import after_reasoning

_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR = re.compile(r"(?:true|false|null|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*")
_DECODER = json.JSONDecoder(strict=False)


class Reading(enum.Enum):
    """Tells how a response was read."""

    STRICT = "read"  # the response is JSON, but for one code fence around it
    RECOVERED = "recovered"  # JSON was found within the text, or was broken off and closed
    FAILED = "failed"


def read_json(text: str, key: str) -> tuple[dict | None, Reading]:
    """Finds the first JSON object of a response that has `key`, and tells how; or None.

    What was broken off is closed after its last complete element. A bare list is taken as the
    value of the key. Reasoning before it is not read.
    """
    text = with_whole_escapes(after_reasoning(text))
    fenced = _FENCE.match(text)
    inner = (fenced[1] if fenced else text).strip()
    value = _loads(inner)
    if isinstance(value, dict) and key in value:
        return value, Reading.STRICT
    if isinstance(value, list):
        return {key: value}, Reading.RECOVERED
    for start in (match.start() for match in re.finditer(r"\{", inner)):
        value, _ = _raw_decode(inner, start)
        if value is None and (closed := _close(inner[start:])):
            value = _loads(closed)
        if isinstance(value, dict) and key in value:
            return value, Reading.RECOVERED
    return None, Reading.FAILED


def read_objects(text: str) -> list[dict]:
    """Returns all JSON objects after the reasoning of a response, in order, except nested ones."""
    text = with_whole_escapes(after_reasoning(text))
    found, start = [], text.find("{")
    while start >= 0:
        value, end = _raw_decode(text, start)
        if isinstance(value, dict):
            found.append(value)
        start = text.find("{", end if value is not None else start + 1)
    return found


def read_counted(reply: Reply, key: str, stage: str, counts: collections.Counter) -> dict:
    """Reads a reply by `read_json`; returns an empty object if that failed.

    The outcome, and whether the reply was cut off, are added to `counts` under the stage.
    """
    counts[f"{stage}_cut"] += not reply.stopped
    value, reading = read_json(reply.text, key)
    counts[f"{stage}_{reading.value}"] += 1
    return value or {}


def texts(value: Any) -> list[str]:
    """Returns the distinct strings of a list, each on one line; a lone string is a list of one.

    Objects contribute their first string: models like to write `{"fact": "..."}`. Small models
    like to repeat themselves.
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return []
    found = []
    for item in value:
        if isinstance(item, dict):
            item = next((field for field in item.values() if isinstance(field, str)), None)
        if line := line_of(item):
            found.append(line)
    return list(dict.fromkeys(found))


def line_of(value: Any) -> str:
    """Returns a string on one line, and anything else as the empty string."""
    return one_line(value) if isinstance(value, str) else ""


def is_true(value: Any) -> bool:
    """Tells whether a value is true, or the word for it."""
    return value is True or isinstance(value, str) and value.strip().lower() == "true"


def numbers(value: Any, below: int, counts: collections.Counter) -> list[int]:
    """Returns the distinct ids in a list that are below `below`; counts others as unknown.

    A number may be a string, and may stand alone instead of in a list.
    """
    listed = value if isinstance(value, list) else [] if value is None else [value]
    found: dict[int, None] = {}
    for item in listed:
        if isinstance(item, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", item):
            item = int(item)
        if type(item) is int and 0 <= item < below:
            found[item] = None
        else:
            counts["unknown_ids"] += 1
    return list(found)


def _loads(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _raw_decode(text: str, start: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start


def _close(text: str) -> str:
    """Closes a text after its last complete element; empty if it is not broken off."""
    closers: list[str] = []
    cut, open_then = 0, ()  # after the last complete element, and brackets open there
    place = 0
    expects_key = False
    while place < len(text):
        character = text[place]
        if character == '"':
            string = _STRING.match(text, place)
            if string is None:
                break
            place = string.end()
            if not expects_key:
                cut, open_then = place, tuple(closers)
            continue
        if character in "{[":
            closers.append("}" if character == "{" else "]")
            expects_key = character == "{"
        elif character in "}]":
            if not closers or closers[-1] != character:
                return ""
            closers.pop()
            cut, open_then = place + 1, tuple(closers)
            if not closers:
                return ""  # complete: its end is not what is wrong
        elif character == ",":
            expects_key = bool(closers) and closers[-1] == "}"
        elif character == ":":
            expects_key = False
        elif scalar := _SCALAR.match(text, place):
            place = scalar.end()
            if place < len(text):  # at the very end a number may be incomplete
                cut, open_then = place, tuple(closers)
            continue
        place += 1
    return text[:cut] + "".join(reversed(open_then)) if cut else ""
