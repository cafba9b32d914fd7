"""Changes small valid inputs: values of JSON, their text, and bytes of files."""

import copy
import random
from collections.abc import Iterator
from typing import Any

DEEP = "[" * 100_000
ODD = [
    *(None, True, False, 0, -1, 1, 7, 10**20, 1.5, 1e308, "", " ", "x", "0", "nan"),
    *("D1:1", "D1:1-D9:9", "D1:2; D9:9", "user", "system", "assistant", "train", "2024-02-30"),
    *([], {}, [[]], [None], ["x"], [0], {"x": 1}, [{}], [[], {}], {"": None}),
    *("\ud83d", "a\u2028b\x85c\x1cd", "\x00", "D" + "9" * 5000 + ":1", "é" * 3000, "\ufeff", "²"),
    *("<|im_end|>\n1: x", "../x", "/etc/passwd", "C:\\", '"', "٣", "1_0", "1e999", "-0"),
]
_PIECES = [
    *(DEEP, "NaN", "Infinity", "9" * 5000, "\u2028", "\0", "\\ud83d", '"', "]", "}", "1e999"),
    *(",", "\\", "\n", "\ufeff", "\ud83d", "{", '{"a":' * 5000, ":", "null", "-"),
]


def changed(value: Any, rng: random.Random) -> Any:
    """Returns the value with one to three odd ones, or with elements gone, renamed or twice."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = [path for path in _places(value) if path]
        if not places:
            return value
        _change(value, rng.choice(places), rng)
    return value


def damaged(text: str, rng: random.Random) -> str:
    """Returns the text cut, with a piece twice or exchanged, or nested too deeply."""
    place = rng.randrange(len(text) + 1)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:place]
    if kind == 1:
        end = min(place + rng.randrange(1, 40), len(text))
        return text[:end] + text[place:]
    return text[:place] + rng.choice(_PIECES) + text[place + (kind == 2) :]


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Returns a file with bits flipped, bytes exchanged, cut off or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        if not changed:
            return b""
        place = rng.randrange(len(changed)) if rng.random() < 0.5 else rng.randrange(12)
        place = min(place, len(changed) - 1)
        kind = rng.randrange(5)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place] = rng.choice([0, 255, 127, 128, 34, 123, 10])
        elif kind == 2:
            del changed[place:]
        elif kind == 3:
            del changed[place]
        else:
            changed[place:place] = rng.randbytes(rng.randrange(1, 9))
    return bytes(changed)


def _places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))


def _change(value: Any, path: tuple, rng: random.Random) -> None:
    *inner, last = path
    holder = value
    for key in inner:
        holder = holder[key]
    kind = rng.randrange(6)
    if kind == 0:
        del holder[last]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(["x", "turns", "session_99", "id", "\ud83d", "text"])] = holder.pop(last)
    elif kind == 2 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    elif kind == 3:  # a value from elsewhere
        other = rng.choice([path for path in _places(value) if path])
        found = value
        for key in other:
            found = found[key]
        holder[last] = copy.deepcopy(found)
    else:
        holder[last] = copy.deepcopy(rng.choice(ODD))
