"""Records of the memory database: events, messages and the state of a memory."""

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from memr1_jax.service import clock

State = dict[str, Any]  # of one memory; see `new_state`
Result = TypeVar("Result")


class Kind(enum.StrEnum):
    """Names what happened to a memory; NONE and FAILED changed nothing."""

    ADD = "ADD"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    NONE = "NONE"
    FAILED = "FAILED"
    UNDO = "UNDO"


class Outdated(Exception):
    """Somebody else wrote to the scope in the meantime: read it again."""


def until_current(attempt: Callable[[], Result]) -> Result:
    """Reads and writes by `attempt`, again where somebody else wrote in between."""
    while True:
        with contextlib.suppress(Outdated):
            return attempt()


@dataclasses.dataclass(frozen=True)
class Entry:
    """One event as it is to be written; `before` is what the writer believes the memory to be."""

    kind: Kind
    memory: str | None
    before: State | None
    after: State | None
    event_time: str
    actor: str = ""
    details: Mapping[str, Any] | None = None
    reverts: int | None = None
    vector: bytes | None = None  # float32 of the text of `after`, where it is known


@dataclasses.dataclass(frozen=True)
class Message:
    """A message as it came, with the time of what it tells."""

    role: str
    speaker: str
    content: str
    event_time: str


def new_state(text: str, speaker: str, *, event_time: str, moment: str = "", **more: Any) -> State:
    """Makes the state of a memory that is written at a moment, now by default.

    `more` replaces further fields. `tokens` is the text as the manager wrote it, for the tokenizer
    `tokenizer`; `slot` its place in the bank of its speaker. `event_time` is the time of what it
    tells, `first_event_time` of what it told at first; `sources` are ids of messages.
    """
    moment = moment or clock.now()
    state = {
        "text": text,
        "speaker": speaker,
        "slot": None,
        "tokens": None,
        "tokenizer": "",
        "metadata": {},
        "event_time": event_time,
        "first_event_time": event_time,
        "created_at": moment,
        "updated_at": moment,
        "expires": None,
        "sources": [],
        "role": "user",
        "actor_id": speaker,
    }
    if unknown := set(more) - set(state):
        raise TypeError(f"A memory has no {unknown}.")
    return state | more


@dataclasses.dataclass(frozen=True)
class Here:
    """A source that is written in the same call: its place among the messages."""

    index: int
