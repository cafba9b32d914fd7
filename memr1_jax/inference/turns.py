"""Turns as callers say them: speaker, text and, where known, time."""

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

from memr1_jax.errors import UserError
from memr1_jax.inference.memories import Memories
from memr1_jax.text.plain import one_line

Said: TypeAlias = tuple[str, str] | tuple[str, str, str]  # speaker, text and, where known, time
Turn: TypeAlias = tuple[str, str, str]  # with an empty time where it is not known


def read_turn(turn: Said) -> Turn:
    """Checks a turn; its time is empty where it has none."""
    if (
        not isinstance(turn, tuple | list)
        or len(turn) not in (2, 3)
        or not all(isinstance(x, str) for x in turn)
    ):
        raise UserError(
            f"A turn is (speaker, text) or (speaker, text, time), all of them text, not {turn!r}."
        )
    speaker, text = turn[:2]
    time = turn[2] if len(turn) == 3 else ""
    if not speaker.strip():
        raise UserError(f"The turn {turn!r} does not say who speaks.")
    return one_line(speaker), text, one_line(time)


def with_room(memories: Memories, said: Sequence[Turn]) -> Memories:
    """Makes room for the names and times of some turns."""
    names = [name for name in memories.speakers if name]
    names = list(dict.fromkeys([*names, *(speaker for speaker, _, _ in said)]))
    if len(names) > 2:
        raise UserError(
            f"These turns have {len(names)} speakers ({', '.join(names)}), and a conversation has"
            " two. Keep memories of your own for each pair."
        )
    times = tuple(dict.fromkeys([*memories.times, *(time for _, _, time in said)]))
    first, second = (*names, "", "")[:2]
    return dataclasses.replace(memories, speakers=(first, second), times=times)
