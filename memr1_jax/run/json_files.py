r"""Reads and writes JSON: one parser and one writer of JSON lines for the whole project.

Errors in a file become sentences that name the file and the line. Lines of JSON
lines end at "\n" alone: U+2028, U+2029 and U+0085, which `str.splitlines` takes for line ends, may
stand inside a text. Half of a surrogate pair, which no UTF-8 file can hold, becomes U+FFFD.
"""

import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.run.files import whole_characters, write_text_atomic

LATER = "; so are later ones"
_DIGITS = 300  # every integer of so many digits is a finite float, too
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a whole pair
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_MAY_HOLD_HALF = re.compile(r"\\u[dD][89a-fA-F]")
# Other programs end lines at these; JSON lets these three stand in a text as they are.
_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def loads(text: str | bytes) -> Any:
    """Parses JSON strictly.

    Returns:
      The value; half surrogates in its texts are U+FFFD.

    Raises:
      ValueError: it is not UTF-8 or not JSON, is nested too deeply, has a field twice, or holds
        NaN, an infinity or a number out of range. The message is a reason in words.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        return STRICT.decode(with_whole_escapes(text.removeprefix("\ufeff")))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text in UTF-8 (byte {error.start}: {error.reason})") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_json(text: str | bytes, place: str | os.PathLike, advice: str = "") -> Any:
    """Parses JSON that stands at `place`, such as "FILE, line 3"; see `loads`.

    Raises:
      UserError: the reason, as `loads` words it, with the place before it and `advice` after it.
    """
    try:
        return loads(text)
    except ValueError as error:
        raise not_json(place, error, advice) from error


def read_json(path: str | os.PathLike, advice: str = "") -> Any:
    """Reads a JSON file; UserError names it, says what is wrong and gives `advice`."""
    data = _read(path, advice)
    warn_of_halves(data, path)
    return parse_json(data, path, advice)


def read_json_object(path: str | os.PathLike, advice: str = "") -> dict[str, Any]:
    """Reads a JSON file that holds an object; UserError as in `read_json`, or for other values."""
    found = read_json(path, advice)
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object in braces. {advice}".rstrip())
    return found


def read_json_lines(path: str | os.PathLike, advice: str = "") -> Iterator[tuple[str, Any]]:
    """Reads a file of JSON lines as it is iterated over; empty lines are skipped.

    Returns:
      Pairs of a place, such as "FILE, line 3", and the value that stands there.

    Raises:
      UserError: the file cannot be read, or a line is not JSON.
    """
    warned = False
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    place = f"{path}, line {number}"
                    warned = warned or warn_of_halves(line, place, LATER)
                    yield place, parse_json(line, place, advice)
    except OSError as error:
        raise _unreadable(path, error, advice) from error


def write_json_lines(path: str | os.PathLike, values: Iterable[Any]) -> None:
    """Writes a file of JSON lines whole or not at all; ValueError for NaN and infinity."""
    write_text_atomic(path, "".join(map(json_line, values)))


def json_line(value: Any) -> str:
    r"""Returns a value as one line that ends in "\n" and holds no other line end."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return whole_characters(text).translate(_LINE_ENDS) + "\n"


def not_json(place: str | os.PathLike, reason: object, advice: str = "") -> UserError:
    """Returns the error for text at `place` that is not JSON."""
    return UserError(f"{place}: this is not valid JSON: {reason}. {advice}".rstrip())


def warn_of_halves(text: str | bytes, place: str | os.PathLike, more: str = "") -> bool:
    """Warns where JSON text holds half of a surrogate pair, and returns whether it does."""
    if found := has_halves(text):
        warnings.warn(
            f"{place}: half of a surrogate pair, which is no character, is read as U+FFFD{more}.",
            stacklevel=3,
        )
    return found


def has_halves(text: str | bytes) -> bool:
    """Tells whether an escape in JSON text is half of a surrogate pair."""
    if isinstance(text, bytes):
        if b"\\u" not in text:
            return False
        text = text.decode("utf-8", "replace")
    return bool(_MAY_HOLD_HALF.search(text)) and any(m["half"] for m in _ESCAPE.finditer(text))


def with_whole_escapes(text: str) -> str:
    r"""Puts `\ufffd` in the place of escapes that are half of a surrogate pair."""
    if not _MAY_HOLD_HALF.search(text):
        return text
    return _ESCAPE.sub(lambda m: "\\ufffd" if m["half"] else m[0], text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the field {twice[:80]!r} stands there twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:80]} is out of range")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON; write null where there is none")


STRICT = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _read(path: str | os.PathLike, advice: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error, advice) from error


def _unreadable(path: str | os.PathLike, error: OSError, advice: str) -> UserError:
    return UserError(f"{path} cannot be read ({error.strerror or error}). {advice}".rstrip())
