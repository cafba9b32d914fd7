"""Records of what the agents did with a request: decisions with their changes, and answers."""

import dataclasses
import functools
from typing import Any

from memr1_jax.inference.memories import Memories, Memory, decode
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.text.events import Event


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of one memory: ADD, UPDATE or DELETE, with its text before and after."""

    event: Event
    slot: int
    before: str
    after: str


@dataclasses.dataclass(frozen=True)
class Decision:
    """One turn: what the manager was told and asked, what it wrote, and what changed.

    `turn` is the place of the turn in the request, `speaker` whose bank it is. `readable` is False
    where nothing could be read of the output: the manager's, or the extractor's, which then
    gave no facts.
    """

    turn: int
    speaker: str
    facts: tuple[str, ...]
    prompt: str
    output: str
    readable: bool
    changes: tuple[Change, ...]


@dataclasses.dataclass(frozen=True)
class Remembered:
    """The banks after a request, and every decision on the way, in the order of the turns."""

    memories: Memories
    decisions: tuple[Decision, ...]


@dataclasses.dataclass(frozen=True)
class Answered:
    """An answer, the memories that were shown for it, best first, and those that it picked."""

    answer: str
    picked: tuple[Memory, ...]
    shown: tuple[Memory, ...]
    response: str
    prompt: str


def changes_between(tokenizer: Any, before: MemoryBank, after: MemoryBank) -> tuple[Change, ...]:
    """Compares two banks `[M, ...]` slot by slot."""
    text = functools.partial(decode, tokenizer)
    changes = []
    for slot in range(len(after.alive)):
        was, now = bool(before.alive[slot]), bool(after.alive[slot])
        same = was and now and text(before, slot) == text(after, slot)
        if same or not (was or now):
            continue
        event = Event.UPDATE if was and now else Event.ADD if now else Event.DELETE
        old, new = text(before, slot) if was else "", text(after, slot) if now else ""
        changes.append(Change(event, slot, old, new))
    return tuple(changes)
