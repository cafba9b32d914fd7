"""Makes the memories of rows without memory management: turns, observations, summaries, chunks.

A `Read` makes memories of one session; an `Arrange` makes others of all that was read.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from memr1_jax.bench.systems.protocol import Memory
from memr1_jax.data.types import Conversation, Fact, Session, Turn
from memr1_jax.text.plain import one_line

Read: TypeAlias = Callable[[Session], list[Memory]]
Arrange: TypeAlias = Callable[[Sequence[Memory]], list[Memory]]


def turns(session: Session) -> list[Memory]:
    """Formats every turn as `speaker said, "text"` (the form of LoCoMo's retrieval baselines)."""
    return [
        Memory(
            text=f'{turn.speaker} said, "{one_line(turn.content)}"',
            time=session.time_of(turn),
            owner=turn.speaker,
            sources=(turn.dia_id,),
        )
        for turn in session.turns
    ]


def observations(conversations: Iterable[Conversation]) -> Read:
    """Takes statements that the data set notes about the speakers: annotations of the task."""
    noted: dict[tuple[str, Turn], list[Fact]] = {}
    for conversation in conversations:
        for fact in conversation.facts:
            turn = conversation.turns[conversation.positions[fact.sources[-1]]]
            noted.setdefault((conversation.times[fact.session], turn), []).append(fact)

    def read(session: Session) -> list[Memory]:
        return [
            Memory(fact.text, session.time_of(turn), fact.speaker, fact.sources)
            for turn in session.turns
            for fact in noted.get((session.time, turn), ())
        ]

    return read


def summaries(
    conversations: Iterable[Conversation], texts: Mapping[str, Mapping[int, str]]
) -> Read:
    """Takes the data set's summaries of sessions, by conversation and number of the session.

    A summary comes from all turns of its session.
    """
    known = {
        session: texts.get(conversation.id, {}).get(session.number, "")
        for conversation in conversations
        for session in conversation.sessions
    }

    def read(session: Session) -> list[Memory]:
        text = one_line(known.get(session, ""))
        sources = tuple(turn.dia_id for turn in session.turns)
        return [Memory(text, session.time, "", sources)] if text else []

    return read


def chunks(size: int, count: Callable[[str], int]) -> Arrange:
    """Joins successive whole turns, as many as `size` tokens hold; a longer turn stands alone.

    A chunk bears the time of its first turn. Sessions run into each other, as in retrieval over a
    document.
    """

    def arrange(memories: Sequence[Memory]) -> list[Memory]:
        groups: list[list[Memory]] = []
        room = 0
        for memory in memories:
            tokens = count(memory.text)
            if not groups or tokens > room:
                groups.append([])
                room = size
            groups[-1].append(memory)
            room -= tokens
        return [
            Memory(
                text=" ".join(memory.text for memory in group),
                time=group[0].time,
                sources=tuple(dict.fromkeys(s for memory in group for s in memory.sources)),
            )
            for group in groups
        ]

    return arrange


def shuffled_times(seed: int) -> Arrange:
    """Shuffles the sessions' dates among the texts: whatever needs dates must suffer."""

    def arrange(memories: Sequence[Memory]) -> list[Memory]:
        times = list(dict.fromkeys(memory.time for memory in memories))
        dealt = random.Random(seed).sample(times, len(times))
        other = dict(zip(times, dealt, strict=True))
        return [Memory(m.text, other[m.time], m.owner, m.sources) for m in memories]

    return arrange
