r"""The one spelling of the manager's JSON that constrained decoding allows, as a byte automaton.

- compact, one object a line: `{"op": "ADD", "text": "..."}`, `{"op": "UPDATE", "id": 3, "text":
  "..."}`, `{"op": "DELETE", "id": 3}`, `{"op": "NONE"}`; ids must be shown ones.
- full: `{"memory": [{"id": "0", "text": "...", "event": "ADD"}, ...]}`; an entry with an id that
  was not shown can only be ADD or NONE.

Texts are not blank, are UTF-8, hold no control characters, no escapes but of the quote, the slash
and the backslash, and no `</think>`, before which nothing is read (`<\/think>` says the same).
`json_scanner` reads all of this, and more.

How many memories are shown is known only at run time, so every transition carries the number it
needs. With fewer, the effect depends on the schema: see `grammar.Grammar`.
"""

import collections
from typing import NamedTuple

import numpy as np

from memr1_jax.text.events import Event
from memr1_jax.text.reasoning import END


class Node(NamedTuple):
    """A place in the grammar: a body, then one of some literals, each with the node that follows.

    The body is nothing, a `text`, a `shown id` (no other is legal) or `any id`.
    """

    options: dict[str, str]
    body: str = "nothing"


_TEXT = (', "text": "', "text")
_CLOSE = ("}", "end")


def _lines() -> dict[str, Node]:
    """Makes the nodes of a line of the compact schema: operations, and the ids that some name."""
    options, named = {}, {}
    for event in Event:
        follows, node = rest = _TEXT if event.writes else _CLOSE
        if event.names_memory:
            named[event.key] = Node(dict([rest]), "shown id")
            follows, node = ', "id": ', event.key
        options[f'{{"op": "{event.name}"{follows}'] = node
    return {"line": Node(options), **named}


def _events(*events: Event) -> dict[str, str]:
    return {f'", "event": "{event.name}"}}': "more" for event in events}


# The first node is the start; "end" is where a stop token may follow.
SCHEMAS = {
    "compact": {
        **_lines(),
        "text": Node({'"}': "end"}, "text"),
        "end": Node({"\n": "line"}),
    },
    "full": {
        "start": Node({'{"memory": [': "list"}),
        "list": Node({'{"id": "': "entry", "]}": "end"}),
        "entry": Node({'"': "known"}, "any id"),
        "known": Node({', "text": "': "known text"}),
        "known text": Node(_events(*Event), "text"),
        "new": Node({', "text": "': "new text"}),
        "new text": Node(_events(*(e for e in Event if not e.names_memory)), "text"),
        "more": Node({', {"id": "': "entry", "]}": "end"}),
        "end": Node({}),
    },
}
# With fewer memories than needed, a known entry is a new one.
TWINS = {"known": "new", "known text": "new text"}


class Tail(NamedTuple):
    """The middle of a character: ranges of the bytes to come, and its bytes while it may be space.

    `space` is empty where the text is not blank, or the character is none of the wide spaces.
    """

    ranges: tuple[tuple[int, int], ...]
    space: bytes = b""


class State(NamedTuple):
    """A node, what was read of its body (None: the body is over), and of its literal."""

    node: str
    body: str | Tail | None
    literal: str = ""


# Continuation bytes that may follow a lead byte (Unicode 15, table 3-7), less the C1 controls.
_CONTINUATION = (0x80, 0xBF)
_SECOND = {0xC2: (0xA0, 0xBF), 0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F)}
_SECOND |= {0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}
_WIDE_SPACES = [chr(code).encode() for code in range(0xA0, 0x3001) if chr(code).isspace()]


def _read_text(body: str | Tail, byte: int) -> str | Tail | None:
    r"""Reads one byte of a text: "" blank so far, "x" not, "\\" an escape, or within a character.

    A beginning of `</think>` stands in place of "x".
    """
    if isinstance(body, Tail):
        return _read_tail(body, byte)
    if body == "\\":
        return "x" if byte in b'"\\/' else None
    if byte == ord("\\"):
        return "\\"
    if 0xC2 <= byte <= 0xF4:
        tail = 1 + (byte >= 0xE0) + (byte >= 0xF0)
        ranges = (_SECOND.get(byte, _CONTINUATION), *[_CONTINUATION] * (tail - 1))
        return Tail(ranges, _may_be_space(bytes([byte])) if body == "" else b"")
    if not 0x20 <= byte < 0x7F or byte == ord('"'):
        return None
    mark = chr(byte) if body in ("", "x") else body + chr(byte)
    mark = mark if END.startswith(mark) else chr(byte)
    if END.startswith(mark):
        return mark if mark != END else None
    return "" if body == "" and byte == ord(" ") else "x"


def _read_tail(body: Tail, byte: int) -> str | Tail | None:
    (low, high), *rest = body.ranges
    if not low <= byte <= high:
        return None
    space = _may_be_space(body.space + bytes([byte])) if body.space else b""
    if rest:
        return Tail(tuple(rest), space)
    return "" if space else "x"


def _may_be_space(data: bytes) -> bytes:
    return data if any(space.startswith(data) for space in _WIDE_SPACES) else b""


def _is_complete(body: str | Tail) -> bool:
    """Tells whether a text may end here."""
    return body not in ("", "\\") and not isinstance(body, Tail)


def _read_id(body: str, byte: int, max_entries: int) -> str | None:
    """Reads one digit of an id, written without leading zeros."""
    digits = body + chr(byte)
    canonical = byte in b"0123456789" and str(int(digits)) == digits
    return digits if canonical and int(digits) < max_entries else None


def _step(nodes: dict, state: State, byte: int, max_entries: int) -> tuple[State, int] | None:
    """Reads one byte: the next state and the number of shown memories it needs; None is illegal."""
    node, need = nodes[state.node], 0
    if state.body is not None:
        body: str | Tail | None
        if node.body == "text":
            body, complete = _read_text(state.body, byte), _is_complete(state.body)
        else:
            assert isinstance(state.body, str)  # the digits of an id
            body, complete = _read_id(state.body, byte, max_entries), bool(state.body)
        if body is not None:
            need = int(str(body)) + 1 if node.body == "shown id" else 0
            return State(state.node, body), need
        if not complete:
            return None
        need = int(str(state.body)) + 1 if node.body == "any id" else 0
    literal = state.literal + chr(byte)
    fits = {text: target for text, target in node.options.items() if text.startswith(literal)}
    if not fits:
        return None
    need = max(need, min(nodes[target].body == "shown id" for target in fits.values()))
    if literal in fits:
        return enter(nodes, fits[literal]), need
    return State(state.node, None, literal), need


def enter(nodes: dict, name: str) -> State:
    """Returns the state at the beginning of a node."""
    return State(name, None if nodes[name].body == "nothing" else "")


def enumerate_states(
    schema: str, max_entries: int
) -> tuple[dict[State, int], np.ndarray, np.ndarray]:
    """Numbers the states from 0, the start; transitions `[S, 256]` int16 (-1 illegal) and needs."""
    nodes = SCHEMAS[schema]
    index: dict[State, int] = {}
    queue: collections.deque[State] = collections.deque()

    def number(state: State) -> int:
        if state not in index:
            index[state] = len(index)
            queue.append(state)
        return index[state]

    number(enter(nodes, next(iter(nodes))))
    for known, new in TWINS.items():
        if known in nodes:
            number(enter(nodes, new))
    following, needs = [], []
    while queue:
        state = queue.popleft()
        row = [_step(nodes, state, byte, max_entries) for byte in range(256)]
        following.append([number(taken[0]) if taken else -1 for taken in row])
        needs.append([taken[1] if taken else 0 for taken in row])
    return index, np.array(following, np.int16), np.array(needs, np.uint8)
