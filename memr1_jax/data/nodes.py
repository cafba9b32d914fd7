"""JSON read with its place in the file, so that every complaint can name the place."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any, TextIO

from memr1_jax.errors import UserError
from memr1_jax.run import json_files
from memr1_jax.run.json_files import (
    LATER,
    STRICT,
    has_halves,
    not_json,
    parse_json,
    warn_of_halves,
)

_ADVICE = "Fetch or write it again, and check --data_path."
_CHUNK = 1 << 22  # characters
_LONGEST, _NAME = 1000, 100  # characters of a complaint, and of a name in a place
_SPACE = re.compile(r"\s*")


class Node:
    """A JSON value and its place in the file."""

    def __init__(self, value: Any, place: str):
        """Holds a value that was read at `place`."""
        self.value, self.place = value, place

    def of(self, *types: type) -> "Node":
        """Returns this node after checking its type; true and false are not numbers."""
        fits = not isinstance(self.value, bool) or bool in types
        if not isinstance(self.value, types) or not fits:
            expected = " or ".join(kind.__name__ for kind in types)
            raise self.error(f"expected {expected} but found {type(self.value).__name__}.")
        return self

    def __getitem__(self, key: str | int) -> "Node":
        """Returns the element at `key`; UserError where there is none."""
        self.of(dict if isinstance(key, str) else list)
        place = f"{self.place}, {str(key)[:_NAME]}"
        try:
            return Node(self.value[key], place)
        except (KeyError, IndexError):
            raise UserError(f"{place}: this is missing.") from None

    def __contains__(self, key: str) -> bool:
        """Tells whether there is something at `key`, even null."""
        return key in self.of(dict).value

    def items(self) -> list["Node"]:
        """Returns the elements of a list."""
        return [self[index] for index in range(len(self.of(list).value))]

    def text(self, key: str) -> str:
        """Returns the string at `key`."""
        return self[key].of(str).value

    def filled(self, key: str, *types: type) -> str:
        """Returns what stands at `key`, of these types, as a string; UserError for a blank."""
        text = str(self[key].of(*(types or (str,))).value)
        if not text.strip():
            raise self[key].error("this is empty. Fill it in, or take it out.")
        return text

    def written(self, key: str) -> str:
        """Returns the string or number at `key`, as a string."""
        return str(self[key].of(str, int, float).value)

    def called(self, name: str) -> "Node":
        """Returns this node with its own name in its place."""
        return Node(self.value, f"{self.place} ({name[:_NAME]})")

    def error(self, complaint: str) -> UserError:
        """Returns an error that says where `complaint` was found; a long one is cut."""
        if len(complaint) > _LONGEST:
            half = _LONGEST // 2
            complaint = f"{complaint[:half]} [...] {complaint[-half:]}"
        return UserError(f"{self.place}: {complaint}")


def read_json(path: str | os.PathLike) -> Node:
    """Reads the content of a JSON file; UserError where it cannot be read."""
    return Node(json_files.read_json(path, _ADVICE), str(path))


def read_lines(path: str | os.PathLike) -> Iterator[Node]:
    """Reads the values of a JSON lines file; empty lines are skipped, UserError names a line."""
    for place, value in json_files.read_json_lines(path, _ADVICE):
        yield Node(value, place)


def read_array(path: str | os.PathLike) -> Iterator[Node]:
    """Reads the elements of a file that is one JSON array, each parsed as it comes.

    Files of gigabytes fit, as no more than one element and a few megabytes of text are held.

    Raises:
      UserError: the file cannot be read, is no array, breaks off, or continues after the array.
    """
    warned = False
    with open_text(path) as file:
        text, whole = file.read(_CHUNK).lstrip(), False
        if not text.startswith("["):
            raise UserError(f"{path}: expected list but found {text[:10]!r}.")
        place, index = 1, 0
        while True:
            start = _SPACE.match(text, place).end()
            if text.startswith("]", start) and not index:
                _check_end(path, text[start + 1 :], file)
                return
            try:
                value, end = STRICT.raw_decode(text, start)
                # What follows shows that the value has ended: "7" may continue as "7.5".
                after = _SPACE.match(text, end).end()
                follows = text[after : after + 1]
            except RecursionError:
                raise not_json(f"{path}, {index}", "it is nested too deeply", _ADVICE) from None
            except json.JSONDecodeError as error:
                if whole:
                    raise not_json(path, error, _ADVICE) from error
                follows = ""
            except ValueError as error:  # of a value that is whole
                raise not_json(f"{path}, {index}", error, _ADVICE) from error
            if follows in (",", "]"):
                where, source = f"{path}, {index}", text[start:end]
                if has_halves(source):
                    value = parse_json(source, where, _ADVICE)
                    warned = warned or warn_of_halves(source, where, LATER)
                yield Node(value, where)
                if follows == "]":
                    _check_end(path, text[after + 1 :], file)
                    return
                place, index = after + 1, index + 1
            elif whole:
                raise not_json(path, f"it breaks off after {index} elements", _ADVICE)
            else:
                more = file.read(_CHUNK)
                text, place, whole = text[start:] + more, 0, not more


def _check_end(path: str | os.PathLike, rest: str, file: TextIO) -> None:
    while not rest.strip() and (more := file.read(_CHUNK)):
        rest = more
    if rest.strip():
        raise not_json(path, f"{rest.strip()[:10]!r} follows the end of the array", _ADVICE)


def read_records(path: str | os.PathLike) -> Iterator[Node]:
    """Reads the records of a file, either one JSON array or JSON lines."""
    with open_text(path) as file:
        while (first := file.read(1)).isspace():
            pass
    return read_array(path) if first == "[" else read_lines(path)


@contextlib.contextmanager
def open_text(path: str | os.PathLike) -> Iterator[TextIO]:
    """Opens a file of UTF-8 text; UserError where it cannot be read or is none."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). {_ADVICE}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error.reason}). {_ADVICE}") from error
