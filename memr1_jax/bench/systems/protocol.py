"""The protocol of memory systems: each reads sessions, then answers questions.

A system never runs a language model itself. Its methods are generators that yield lists of
`Call`s and are sent back their `Reply`s; `together` advances the generators of all conversations
and questions side by side, so that their calls form one batch after another.
"""

import collections
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

from memr1_jax.data.types import Question, Session

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Call:
    """One prompt for a language model.

    Usage is counted under `stage` ("extract", "manage", "answer", ...). `model` names the weights:
    "base" or a trained agent. `schema` names a grammar that the reply is held to, with `ids` the
    number of memory ids that it may name; empty for free text.
    """

    stage: str
    messages: tuple[tuple[str, str], ...]  # role, content
    max_tokens: int
    model: str = "base"
    schema: str = ""
    ids: int = 0


@dataclasses.dataclass(frozen=True)
class Reply:
    """A model's reply; `seconds` is the time of the batch that the call was part of."""

    text: str
    prompt_tokens: int
    tokens: int
    stopped: bool  # False: cut off at `max_tokens`
    seconds: float
    cut: int = 0  # prompt tokens that were left out, because the model holds no more


Steps = Generator[list[Call], list[Reply], T]


@dataclasses.dataclass(frozen=True)
class Memory:
    """Something that a system holds, and the ids of the turns it came from."""

    text: str
    time: str
    owner: str = ""
    sources: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Answer:
    """A system's answer: the whole response, its part that counts, and the memories shown."""

    response: str
    answer: str
    rule: str  # how the answer was found in the response
    memories: tuple[Memory, ...] = ()
    search_seconds: float = 0.0
    without_room: int = 0  # memories that were chosen, but did not fit into the prompt


class Store(Protocol):
    """A system's memory of one conversation; it never sees questions before they are asked."""

    counts: collections.Counter  # operations, parse failures, unknown ids, ...

    def ingest(self, session: Session) -> Steps[None]:
        """Reads the next session."""

    def answer(self, question: Question) -> Steps[Answer]:
        """Answers from what was read so far; leaves the store as it is."""

    def memories(self) -> Sequence[Memory]:
        """Returns all that is held now."""


class System(Protocol):
    """A row of a table: how conversations are remembered and questions answered."""

    name: str

    def start(self, speakers: tuple[str, str]) -> Store:
        """Makes an empty store for a conversation of two people."""


def ask(call: Call) -> Steps[Reply]:
    """Makes a single call."""
    (reply,) = yield [call]
    return reply


def side_by_side(
    steps: Sequence[Steps[T]], on_done: Callable[[int, int], None] = lambda done, total: None
) -> Steps[list[T]]:
    """Advances all generators in step, as one generator, and returns what they return, in order.

    In each round it yields the pending calls of all of them at once.

    Args:
      steps: for example one for each stream of facts of a conversation.
      on_done: told before each round, and at the end, how many have finished, and of how many.
    """
    results: dict[int, T] = {}
    pending: dict[int, list[Call]] = {}

    def advance(index: int, send: Any) -> None:
        try:
            pending[index] = steps[index].send(send)
        except StopIteration as end:
            results[index] = end.value
            pending.pop(index, None)

    for index in range(len(steps)):
        advance(index, None)
    while pending:
        on_done(len(results), len(steps))
        waiting = list(pending.items())
        replies = iter((yield [call for _, calls in waiting for call in calls]))
        for index, calls in waiting:
            advance(index, [next(replies) for _ in calls])
    on_done(len(results), len(steps))
    return [results[index] for index in range(len(steps))]


def together(
    steps: Sequence[Steps[T]],
    run: Callable[[list[Call]], list[Reply]],
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[T]:
    """Advances all generators side by side and returns what they return, in order.

    Args:
      steps: one for each conversation or question.
      run: answers a list of calls, in order.
      on_done: see `side_by_side`.
    """
    joint = side_by_side(steps, on_done)
    replies = None
    while True:
        try:
            calls = joint.send(replies)
        except StopIteration as end:
            return end.value
        replies = run(calls)
