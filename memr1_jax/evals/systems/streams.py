"""Several generators of calls as one, so that what happens side by side also asks side by side."""

from collections.abc import Sequence
from typing import Any, TypeVar

from memr1_jax.evals.systems.protocol import Call, Reply, Steps

T = TypeVar("T")


def side_by_side(steps: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Advances all generators in step, as one generator, and returns what they return in order.

    It yields the pending calls of all of them at once: the streams of a conversation are to
    `protocol.together` what the conversations are to the evaluation.
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
        waiting = list(pending.items())
        replies = iter((yield [call for _, calls in waiting for call in calls]))
        for index, calls in waiting:
            advance(index, [next(replies) for _ in calls])
    return [results[index] for index in range(len(steps))]


def ask(call: Call) -> Steps[Reply]:
    """Makes a single call."""
    (reply,) = yield [call]
    return reply
