"""The byte automaton behind `json_scanner`: a transition function, enumerated into tables.

A state says where in the JSON the reader stands; a transition takes one byte to the next state and
names an action. The rules of the language are in `json_scanner`. A byte that fits nowhere is a
fault, from which `_recover` leads on.
"""

import collections
import enum
import functools
from typing import NamedTuple

import flax.struct
import jax
import numpy as np

from memr1_jax.arrays import on_host
from memr1_jax.text.events import SPELLINGS

_SPACE = " \t\n\r"
_ESCAPES = dict(zip('"\\/bfnrt', '"\\/\b\f\n\r\t', strict=True))
_ENTRY_KEYS = {"op": "op", "event": "op", "id": "id", "text": "text"}
# Which keys mean something, by the kind of object; all other keys are skipped.
_KEYS = {
    "opening": _ENTRY_KEYS | {"memory": "memory"},  # a brace, maybe of prose, until its first colon
    "first": _ENTRY_KEYS | {"memory": "memory"},  # the first object may follow either schema
    "top": {"memory": "memory"},  # it held a memory list, so it follows the full one
    "entry": _ENTRY_KEYS,  # an object of the memory list
    "line": _ENTRY_KEYS,  # a later object of the compact schema
}
# Phases of a number: the sign, a leading zero, digits, the point, the fraction, the exponent.
_NUMBER = {
    "start": {"-": "sign", "0": "zero", "1-9": "digits"},
    "sign": {"0": "zero", "1-9": "digits"},
    "zero": {".": "point", "e": "exponent"},
    "digits": {"0": "digits", "1-9": "digits", ".": "point", "e": "exponent"},
    "point": {"0": "fraction", "1-9": "fraction"},
    "fraction": {"0": "fraction", "1-9": "fraction", "e": "exponent"},
    "exponent": {"+": "power sign", "-": "power sign", "0": "power", "1-9": "power"},
    "power sign": {"0": "power", "1-9": "power"},
    "power": {"0": "power", "1-9": "power"},
}
_COMPLETE_NUMBERS = {"zero", "digits", "fraction", "power"}


class Action(enum.IntEnum):
    """Tells the scanner of a transition; `DIGIT + d` and `EVENT + e` carry a value."""

    NOTHING = 0
    JUNK = 1  # text before or after the JSON
    ARRAY = 2  # a memory list begins
    OPEN = 3  # an object that may be an entry begins
    CLOSE = 4  # an entry is complete
    OP_KEY = 5  # a key: whatever an earlier key of this name gave is forgotten
    ID_KEY = 6
    TEXT_KEY = 7
    TEXT_BEGIN = 8
    TEXT_END = 9
    RAW = 10  # a byte of the text as it stands
    SIMPLE_ESCAPE = 11  # the last byte of an escape like \n
    UNICODE_ESCAPE = 12  # the last byte of an escape like \u00e9
    NOT_A_DIGIT = 13  # the id is not a number
    REOPEN = 14  # an object opens right after a brace that was prose
    FAULT = 15  # an object is broken
    DIGIT = 20
    EVENT = 30


class State(NamedTuple):
    """Holds the place of the reader.

    `progress` is the part of a word read so far (None: no word any more), the phase of a number,
    or the rest of a literal; `escape` is the part of a string escape read so far.
    """

    where: str
    level: str = ""
    role: str = ""
    progress: str | None = ""
    escape: str = ""


START = State("before")
BROKEN = State("broken")


def step(state: State, byte: int) -> tuple[State, int]:
    """Reads one byte."""
    if state == BROKEN:
        return BROKEN, Action.NOTHING
    following, action = _read_byte(state, chr(byte))
    return _recover(state, chr(byte)) if following == BROKEN else (following, action)


def _recover(state: State, character: str) -> tuple[State, int]:
    """Recovers from a byte that fits nowhere.

    A brace without a key and its colon was prose, and reading resumes at this byte. Another broken
    object of the compact schema ends with its line; in a memory list nothing more can be read.
    """
    if state.level == "opening":
        following, action = _outside(START, character)
        return following, Action.REOPEN if action == Action.OPEN else Action.JUNK
    if state.level in ("first", "line"):
        return _skip(State("skip", state.level), character)[0], Action.FAULT
    return BROKEN, Action.FAULT


def _skip(state: State, character: str) -> tuple[State, int]:
    """Looks for a line that begins with an object."""
    if character == "\n":
        return state._replace(where="line start"), Action.NOTHING
    if character == "{" and state.where == "line start":
        return State("open", "opening" if state.level == "first" else "line"), Action.OPEN
    return state._replace(where="skip"), Action.NOTHING


def _read_byte(state: State, character: str) -> tuple[State, int]:
    if state.where in ("skip", "line start"):
        return _skip(state, character)
    if state.where in ("before", "between", "after"):
        return _outside(state, character)
    if state.where in ("key", "string"):
        return _string(state, character)
    if state.where == "number":
        return _number(state, character)
    if state.where == "literal":
        assert state.progress is not None
        if not state.progress.startswith(character):
            return BROKEN, Action.NOTHING
        rest = state.progress[1:]
        return (state._replace(progress=rest) if rest else _done(state)), Action.NOTHING
    if character in _SPACE:
        return state, Action.NOTHING
    return _structure(state, character)


def _outside(state: State, character: str) -> tuple[State, int]:
    """Reads before the first object, between compact objects and after the end."""
    if character == "{" and state.where != "after":
        level = "opening" if state.where == "before" else "line"
        return State("open", level), Action.OPEN
    if character in _SPACE or (character == "," and state.where == "between"):
        return state, Action.NOTHING
    return (State("after") if state.where == "between" else state), Action.JUNK


def _structure(state: State, character: str) -> tuple[State, int]:
    """Reads braces, brackets, colons, commas and the first byte of keys and values."""
    match state.where, character:
        case (("open" | "comma"), '"'):
            return State("key", state.level), Action.NOTHING
        case (("open" | "next"), "}"):
            return _close_object(state.level)
        case "next", ",":
            return State("comma", state.level), Action.NOTHING
        case "colon", ":":
            keys = {"op": Action.OP_KEY, "id": Action.ID_KEY, "text": Action.TEXT_KEY}
            level = "first" if state.level == "opening" else state.level
            return State("value", level, state.role), keys.get(state.role, Action.NOTHING)
        case "value", _:
            return _value(state, character)
        case (("array" | "list comma"), "{"):
            return State("open", "entry"), Action.OPEN
        case (("array" | "list next"), "]"):
            return State("next", "top"), Action.NOTHING
        case "list next", ",":
            return State("list comma"), Action.NOTHING
    return BROKEN, Action.NOTHING


def _close_object(level: str) -> tuple[State, int]:
    if level == "opening":  # an empty object says nothing
        return START, Action.JUNK
    if level == "top":
        return State("after"), Action.NOTHING
    return State("list next" if level == "entry" else "between"), Action.CLOSE


def _value(state: State, character: str) -> tuple[State, int]:
    if state.role == "memory":
        return (State("array"), Action.ARRAY) if character == "[" else (BROKEN, Action.NOTHING)
    if character == '"':
        progress = "" if state.role == "op" else None
        begin = Action.TEXT_BEGIN if state.role == "text" else Action.NOTHING
        return state._replace(where="string", progress=progress), begin
    for literal in ("true", "false", "null"):
        if literal.startswith(character):
            return State("literal", state.level, progress=literal[1:]), Action.NOTHING
    role = "id" if state.role == "id" else ""  # only the number of an id is looked at
    return _number(State("number", state.level, role, "start"), character)


def _done(state: State) -> State:
    """Returns the state after a complete value."""
    return State("next", state.level)


def _number(state: State, character: str) -> tuple[State, int]:
    kind = "1-9" if character in "123456789" else character.lower()
    assert state.progress is not None
    phase = _NUMBER[state.progress].get(kind)
    if phase is None:
        complete = state.progress in _COMPLETE_NUMBERS
        return _read_byte(_done(state), character) if complete else (BROKEN, Action.NOTHING)
    action: int = Action.NOTHING
    if state.role == "id":
        integer = phase in ("zero", "digits")
        action = Action.DIGIT + int(character) if integer else Action.NOT_A_DIGIT
    return state._replace(progress=phase), action


def _words(state: State) -> dict:
    """Returns the words that count in this string."""
    if state.where == "key":
        return _KEYS[state.level]
    return SPELLINGS if state.role == "op" else {}


def _string(state: State, character: str) -> tuple[State, int]:
    if state.escape:
        return _escape(state, character)
    if character == '"':
        return _end_of_string(state)
    if character == "\\":
        return state._replace(escape=character), Action.NOTHING
    if character < " ":
        return BROKEN, Action.NOTHING
    return _read(state, character, Action.RAW)


def _end_of_string(state: State) -> tuple[State, int]:
    word = _words(state).get(state.progress)
    if state.where == "key":
        return State("colon", state.level, word or "other"), Action.NOTHING
    action = Action.TEXT_END if state.role == "text" else Action.NOTHING
    return _done(state), action if word is None else Action.EVENT + word


def _escape(state: State, character: str) -> tuple[State, int]:
    escape = state.escape + character.lower()
    if len(escape) == 2 and character != "u":
        if character not in _ESCAPES:
            return BROKEN, Action.NOTHING
        return _read(state._replace(escape=""), _ESCAPES[character], Action.SIMPLE_ESCAPE)
    if len(escape) > 2 and character not in "0123456789abcdefABCDEF":
        return BROKEN, Action.NOTHING
    if len(escape) == 6:
        # A digit that was forgotten below makes a character that does not matter.
        decoded = "\0" if "?" in escape else chr(int(escape[2:], 16))
        return _read(state._replace(escape=""), decoded, Action.UNICODE_ESCAPE)
    # Only what can still become a digit, or the next letter of a word, needs to be remembered.
    if not any(f"\\u{ord(c):04x}".startswith(escape) for c in _wanted(state)):
        escape = "\\u" + "?" * (len(escape) - 2)
    return state._replace(escape=escape), Action.NOTHING


def _wanted(state: State) -> str:
    """Returns the characters that an escape must not hide."""
    if state.where == "string" and state.role == "id":
        return "0123456789"
    if state.progress is None:
        return ""
    size = len(state.progress)
    letters = "".join(
        word[size : size + 1] for word in _words(state) if word.startswith(state.progress)
    )
    return letters if state.where == "key" else letters + letters.upper()


def _read(state: State, character: str, action: Action) -> tuple[State, int]:
    """Takes one decoded character of a string."""
    if state.where == "string" and state.role == "text":
        return state, action
    if state.where == "string" and state.role == "id":
        digit = character in "0123456789"
        return state, Action.DIGIT + int(character) if digit else Action.NOT_A_DIGIT
    if state.progress is not None:
        # Keys are case-sensitive, events are not.
        progress = state.progress + (character if state.where == "key" else character.lower())
        known = any(word.startswith(progress) for word in _words(state))
        state = state._replace(progress=progress if known else None)
    return state, Action.NOTHING


@flax.struct.dataclass
class ScannerTables:
    """The automaton as arrays; state 0 is the start.

    `next [S, 256]` int16; `action [S, 256]` uint8; `after [S]` bool, the JSON is complete;
    `between [S]` bool, no object is open in the compact schema.
    """

    next: jax.Array
    action: jax.Array
    after: jax.Array
    between: jax.Array


@functools.cache
def scanner_tables() -> ScannerTables:
    """Enumerates the states by breadth-first search; NumPy arrays of about 0.7 MB."""
    index = {START: 0}
    queue = collections.deque([START])
    rows = []
    while queue:
        state = queue.popleft()
        # Bytes beyond ASCII are all alike.
        row = [step(state, byte) for byte in range(128)] + [step(state, 128)] * 128
        for successor, _ in row:
            if successor not in index:
                index[successor] = len(index)
                queue.append(successor)
        rows.append([(index[successor], int(action)) for successor, action in row])
    table = np.array(rows, np.int16)
    return on_host(
        ScannerTables,
        next=table[:, :, 0].copy(),
        action=table[:, :, 1].astype(np.uint8),
        after=np.array([state.where == "after" for state in index]),
        between=np.array([state.where == "between" for state in index]),
    )
