"""Training tuples of the two agents (Memory-R1, arXiv 2508.19828, Algorithms 1 and 2)."""

import dataclasses
from typing import Literal

import numpy as np

from memr1_jax.data.types import Conversation, Fact, Question

Banks = tuple[tuple[Fact, ...], tuple[Fact, ...]]


@dataclasses.dataclass(frozen=True)
class ManagerTuple:
    """What the Memory Manager sees at one turn, and the questions that judge what it does.

    `speaker` is 0 or 1 and says whose bank is edited. `turn` is the position in dialogue order.
    `facts` are those the turn brings about its speaker. `banks` are both speakers' facts from
    before the turn, as `banks_before` says. `questions` never reach the manager.
    """

    conversation: str
    speaker: int
    session: int
    turn: int
    dia_id: str
    facts: tuple[Fact, ...]
    banks: Banks
    questions: tuple[Question, ...]


@dataclasses.dataclass(frozen=True)
class AnswerTuple:
    """A question and the two banks the Answer Agent may search."""

    conversation: str
    question: Question
    banks: Banks


def manager_tuples(
    conversation: Conversation, window: int | None = 50, link: Literal["last", "any"] = "last"
) -> list[ManagerTuple]:
    """Return one tuple for every turn with a linked question, in dialogue order (Algorithm 1).

    Args:
      conversation: the dialogue.
      window: how many turns before the turn supply the banks; None means all of them.
      link: whether a question belongs to its latest evidence turn or to each of them. A question
        whose evidence names no existing turn belongs to none.
    """
    if link not in ("last", "any"):
        raise ValueError(f"link is 'last' or 'any', not {link!r}")
    linked: dict[int, list[Question]] = {}
    for question in conversation.questions:
        for identity in question.evidence[-1:] if link == "last" else question.evidence:
            linked.setdefault(conversation.positions[identity], []).append(question)

    tuples = []
    for position in sorted(linked):
        turn = conversation.turns[position]
        facts = facts_of_turn(conversation, position)
        tuples.append(
            ManagerTuple(
                conversation=conversation.id,
                speaker=conversation.speakers.index(turn.speaker),
                session=facts[0].session,
                turn=position,
                dia_id=turn.dia_id,
                facts=facts,
                banks=banks_before(conversation, position, window),
                questions=tuple(linked[position]),
            )
        )
    return tuples


def answer_tuples(conversation: Conversation, banks: Banks | None = None) -> list[AnswerTuple]:
    """Return one tuple for every question (Algorithm 2).

    Args:
      conversation: the dialogue.
      banks: what a Memory Manager made of the dialogue; without it, what `facts_before` says at
        the end.
    """
    if banks is None:
        banks = banks_before(conversation, len(conversation.turns), window=None)
    return [AnswerTuple(conversation.id, question, banks) for question in conversation.questions]


def turn_of(conversation: Conversation, fact: Fact) -> int:
    """Return the position of the turn a fact belongs to.

    That is the last of its sources: before that turn the fact was not yet known in full.
    """
    return conversation.positions[fact.sources[-1]]


def facts_of_turn(conversation: Conversation, position: int) -> tuple[Fact, ...]:
    """Return the facts a turn brings about its own speaker, or else its text as one fact.

    A fact about the other speaker does not count: it belongs to the bank that this turn leaves
    alone, where later turns find it.
    """
    turn = conversation.turns[position]
    facts = tuple(
        fact
        for fact in conversation.facts
        if fact.sources[-1] == turn.dia_id and fact.speaker == turn.speaker and fact.text.strip()
    )
    if facts:
        return facts
    session = next(s.number for s in conversation.sessions if turn in s.turns)
    return (Fact(turn.speaker, f"{turn.speaker}: {turn.content}", session, (turn.dia_id,)),)


def facts_before(conversation: Conversation, position: int) -> tuple[Fact, ...]:
    """Return the facts a memory should hold before a position.

    They are those its gold operations leave, or all earlier ones if the dialogue has none.
    """
    facts = conversation.facts
    if not conversation.operations:
        return tuple(fact for fact in facts if turn_of(conversation, fact) < position)
    held: dict[int, None] = {}
    for operation in conversation.operations:
        if turn_of(conversation, facts[operation.fact]) < position:
            held.pop(operation.replaces, None)
            if operation.event.writes:
                held[operation.fact] = None
    return tuple(facts[index] for index in held)


def banks_before(conversation: Conversation, position: int, window: int | None = None) -> Banks:
    """Return each speaker's `facts_before` from the last `window` turns; None means from all.

    Blank facts are no memories.
    """
    start = 0 if window is None else position - window
    held = [fact for fact in facts_before(conversation, position) if fact.text.strip()]
    recent = [fact for fact in held if turn_of(conversation, fact) >= start]
    first, second = conversation.speakers
    return (
        tuple(fact for fact in recent if fact.speaker == first),
        tuple(fact for fact in recent if fact.speaker == second),
    )


def spread(total: int, limit: int) -> list[int]:
    """Return at most `limit` of `total` rows, evenly spread; all of them where `limit` is 0."""
    if not limit or limit >= total:
        return list(range(total))
    return [int(row) for row in np.linspace(0, total - 1, limit).round()]
