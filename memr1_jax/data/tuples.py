"""Training tuples of the Memory Manager (Memory-R1, arXiv 2508.19828, Algorithm 1)."""

import dataclasses
from typing import Literal

import numpy as np

from memr1_jax.data.types import Conversation, Fact, Question
from memr1_jax.text.events import Event

Banks = tuple[tuple[Fact, ...], tuple[Fact, ...]]


@dataclasses.dataclass(frozen=True)
class ManagerTuple:
    """Holds what the Memory Manager sees at one turn, and the questions that judge what it does.

    `speaker` is 0 or 1 and says whose bank is edited. `turn` is the position in dialogue order.
    `facts` are those the turn brings about that speaker. `banks` are both speakers' facts from
    before the turn, as `banks_before` says. `questions` never reach the manager. `retained` are
    asked besides, and `later` facts join both banks before any is asked; see `data/pressure.py`.
    """

    conversation: str
    speaker: int
    session: int
    turn: int
    dia_id: str
    facts: tuple[Fact, ...]
    banks: Banks
    questions: tuple[Question, ...]
    retained: tuple[Question, ...] = ()
    later: Banks = ((), ())


def linked_questions(
    conversation: Conversation, link: Literal["last", "any"] = "last"
) -> dict[int, tuple[Question, ...]]:
    """Returns each evidence turn's questions by its position, in dialogue order.

    Args:
      conversation: the dialogue.
      link: whether a question belongs to its latest evidence turn or to each of them. A question
        whose evidence names no existing turn belongs to none.
    """
    if link not in ("last", "any"):
        raise ValueError(f"link is 'last' or 'any', not {link!r}")
    linked: dict[int, list[Question]] = {}
    for question in conversation.questions:
        for identity in question.evidence[-1:] if link == "last" else question.evidence:
            linked.setdefault(conversation.positions[identity], []).append(question)
    return {position: tuple(linked[position]) for position in sorted(linked)}


def manager_tuples(
    conversation: Conversation, window: int | None = 50, link: Literal["last", "any"] = "last"
) -> list[ManagerTuple]:
    """Returns one tuple for every turn with a linked question and a noted fact (Algorithm 1).

    A turn without a noted fact is left out: a manager that reads dialogues is never shown one, see
    `fact_streams` in `data/encode.py`.

    Args:
      conversation: the dialogue.
      window: how many turns before the turn supply the banks; None means all of them.
      link: see `linked_questions`.
    """
    tuples = []
    for position, questions in linked_questions(conversation, link).items():
        if facts := facts_of_turn(conversation, position):
            tuples.append(manager_tuple(conversation, position, facts, window, questions))
    return tuples


def manager_tuple(
    conversation: Conversation,
    position: int,
    facts: tuple[Fact, ...],
    window: int | None,
    questions: tuple[Question, ...],
) -> ManagerTuple:
    """Makes the tuple of a turn with the facts that it tells; they belong to one speaker."""
    return ManagerTuple(
        conversation=conversation.id,
        speaker=conversation.speakers.index(facts[0].speaker),
        session=facts[0].session,
        turn=position,
        dia_id=conversation.turns[position].dia_id,
        facts=facts,
        banks=banks_before(conversation, position, window),
        questions=questions,
    )


def turn_of(conversation: Conversation, fact: Fact) -> int:
    """Returns the position of the turn a fact belongs to.

    That is the last of its sources: before that turn the fact was not yet known in full.
    """
    return conversation.positions[fact.sources[-1]]


def evidence_places(conversation: Conversation, question: Question) -> tuple[int, ...]:
    """Returns the turns that the evidence of a question is remembered under, in order.

    A memory names the turn of the fact that it holds, which may draw on earlier turns too. Turns
    after which a right memory holds nothing new, as they repeat or end something, do not count.
    """
    facts = conversation.facts
    silent = {
        turn_of(conversation, facts[operation.fact])
        for operation in conversation.operations
        if not operation.event.writes
    }
    places = []
    for identity in question.evidence:
        told = [turn_of(conversation, fact) for fact in facts if identity in fact.sources]
        places.append(min(told, default=conversation.positions[identity]))
    return tuple(dict.fromkeys(place for place in places if place not in silent))


def outdated_places(conversation: Conversation, question: Question) -> tuple[int, ...]:
    """Returns the turns of memories that the evidence of a question has replaced, in order.

    Gold operations say what an UPDATE replaces; a dialogue without them has none.
    """
    facts = conversation.facts
    replaced = {
        operation.fact: operation.replaces
        for operation in conversation.operations
        if operation.event == Event.UPDATE
    }
    evidence, found = evidence_places(conversation, question), set()
    for place, fact in enumerate(facts):
        if turn_of(conversation, fact) in evidence:
            old = replaced.get(place)
            while old is not None:
                found.add(turn_of(conversation, facts[old]))
                old = replaced.get(old)
    return tuple(sorted(found))


def facts_of_turn(conversation: Conversation, position: int) -> tuple[Fact, ...]:
    """Returns the facts that a turn tells about its speaker, else those about the other one.

    They all belong to one speaker's bank. If a turn tells about both, the facts about the other
    speaker do not count.
    """
    turn = conversation.turns[position]
    told = [
        fact for fact in conversation.facts if fact.sources[-1] == turn.dia_id and fact.text.strip()
    ]
    own = tuple(fact for fact in told if fact.speaker == turn.speaker)
    return own or tuple(told)


def facts_before(conversation: Conversation, position: int) -> tuple[Fact, ...]:
    """Returns the facts a memory should hold before a position.

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
    """Returns each speaker's `facts_before` from the last `window` turns; None means from all.

    Blank facts are not memories.
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
    """Returns at most `limit` of `total` rows, evenly spread; all of them where `limit` is 0."""
    if not limit or limit >= total:
        return list(range(total))
    return [int(row) for row in np.linspace(0, total - 1, limit).round()]
