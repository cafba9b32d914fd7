"""Sources of the facts that a system remembers: a language model, the data's notes, or turns.

A `FactSource` is a generator over one session. The extractor follows Mem0 (arXiv 2504.19413), which
Memory-R1 takes over: two messages a call, and for a dialogue of two people two passes, each speaker
once in the role of the user. Unlike there, the prompt states the session's own date, not that of
the clock, and asks for names and absolute dates.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from memr1_jax.bench.systems.loose_json import read_counted, texts
from memr1_jax.bench.systems.management_prompts import extraction_prompt, fill_prompt
from memr1_jax.bench.systems.protocol import Call, Steps
from memr1_jax.bench.systems.units import observations
from memr1_jax.data.types import Conversation, Fact, Session, Turn
from memr1_jax.text.plain import one_line

FactSource: TypeAlias = Callable[[Session, tuple[str, str], collections.Counter], Steps[list[Fact]]]


def is_chat(speakers: tuple[str, str]) -> bool:
    """Tells whether a person talks with an assistant, so that only one of the two has facts."""
    return {speaker.lower() for speaker in speakers} == {"user", "assistant"}


def owners(speakers: tuple[str, str]) -> tuple[str, ...]:
    """Returns those who are remembered: both speakers, but in a chat the user alone."""
    if is_chat(speakers):
        return tuple(speaker for speaker in speakers if speaker.lower() == "user")
    return speakers


def spoken(session: Session, speakers: tuple[str, ...]) -> tuple[Turn, ...]:
    """Returns what the two say, without the system messages of some data sets."""
    return tuple(turn for turn in session.turns if turn.speaker in speakers)


def extracted_facts(
    prompt: str = "full",
    *,
    model: str = "base",
    max_tokens: int = 2000,
    messages: int = 2,
) -> FactSource:
    """Has a language model write down facts; all calls of a session are made at once.

    A fact is taken to come from all messages of its call. Rows that share model and prompt make the
    same calls, which the engine's cache of replies answers.

    Args:
      prompt: see `extraction_prompt`.
      model: the weights, see `Call`.
      max_tokens: of a reply.
      messages: how many turns a call shows.
    """
    template = extraction_prompt(prompt)

    def facts(session, speakers, counts):
        turns = spoken(session, speakers)
        parts = [
            (owner, turns[start : start + messages])
            for owner in owners(speakers)
            for start in range(0, len(turns), messages)
        ]
        calls = [
            Call("extract", _messages(template, session, owner, turns), max_tokens, model)
            for owner, turns in parts
        ]
        replies = (yield calls) if calls else []
        found = []
        for (owner, turns), reply in zip(parts, replies, strict=True):
            value = read_counted(reply, "facts", "extract", counts)
            sources = tuple(turn.dia_id for turn in turns)
            for text in texts(value.get("facts")):
                found.append(Fact(owner, text, session.number, sources))
        counts["facts"] += len(found)
        return found

    return facts


def _messages(template, session: Session, owner: str, turns: Sequence[Turn]):
    return fill_prompt(
        template,
        time=session.time_of(turns[-1]),
        person=owner,
        turns=[
            {
                "role": "user" if turn.speaker == owner else "assistant",
                "speaker": turn.speaker,
                "text": turn.content,
            }
            for turn in turns
        ],
    )


def noted_facts(conversations: Iterable[Conversation]) -> FactSource:
    """Takes facts that the data set itself notes for its turns, such as LoCoMo's observations.

    They are annotations of the task: a row that uses them has to say so in its name.
    """
    read = observations(conversations)

    def facts(session, speakers, counts):
        return _given(
            [Fact(m.owner, m.text, session.number, m.sources) for m in read(session)], counts
        )

    return facts


def turn_facts(session: Session, speakers: tuple[str, ...], counts) -> Steps[list[Fact]]:
    """Takes every turn as it was said, after the speaker's name; asks no language model."""
    facts = []
    for turn in spoken(session, speakers):
        text = one_line(f"{turn.speaker}: {turn.content}")
        facts.append(Fact(turn.speaker, text, session.number, (turn.dia_id,)))
    return _given(facts, counts)


def user_turn_facts(session: Session, speakers: tuple[str, str], counts) -> Steps[list[Fact]]:
    """Does as `turn_facts`, but takes only the user's turns of a chat with an assistant."""
    return turn_facts(session, owners(speakers), counts)


def _given(facts: list[Fact], counts) -> Steps[list[Fact]]:
    told = [fact for fact in facts if fact.text.strip()]
    counts["facts"] += len(told)
    if len(told) < len(facts):
        counts["facts_skipped"] += len(facts) - len(told)
    return told
    yield  # makes it a generator


def arrivals(facts: Sequence[Fact], speaker: str) -> list[tuple[Fact, ...]]:
    """Groups the facts about one speaker that come together: those with the same latest turn."""
    own = [fact for fact in facts if fact.speaker == speaker]
    return [tuple(group) for _, group in itertools.groupby(own, lambda fact: fact.sources[-1])]
