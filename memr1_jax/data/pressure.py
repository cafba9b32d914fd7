"""Pressure on single turns: questions that a wrong edit spoils, silent turns, deep banks.

Linked questions alone reward ADD: none of them can be answered from the bank before the turn, and
nothing that the bank holds is ever asked for. Retention questions are about what it holds.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from memr1_jax.data.encode import Encoder
from memr1_jax.data.tuples import (
    ManagerTuple,
    evidence_places,
    facts_before,
    facts_of_turn,
    linked_questions,
    manager_tuple,
    spread,
    turn_of,
)
from memr1_jax.data.types import Conversation, Fact, Question
from memr1_jax.options import at_least, option


@dataclasses.dataclass(frozen=True)
class PressureOptions:
    """Make wrong edits of the Memory Manager's single turns cost something."""

    retention_questions: int = option(
        0,
        "Questions that a training turn of the manager is asked besides its own, which its bank"
        " can answer before the turn; those about memories most like the turn's facts come first.",
        within=at_least(0),
    )
    silent_turns: float = option(
        0.0,
        "Training turns of the manager that no question is linked to, as a share of those that have"
        " one; --retention_questions judge them.",
        within=at_least(0),
    )
    bank_depth: int = option(
        0,
        "Memories that a training bank of the manager holds when its questions are asked, as at the"
        " end of a dialogue: facts of later turns, evenly spread, fill it up to so many; 0: none.",
        within=at_least(0),
    )

    @property
    def presses(self) -> bool:
        """Says whether any of it is asked for."""
        return bool(self.retention_questions or self.bank_depth)


def with_pressure(
    options: PressureOptions,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    tuples: Sequence[ManagerTuple],
    window: int | None = None,
    link: str = "last",
) -> list[ManagerTuple]:
    """Adds what the options name to turns; silent turns follow those of their conversation.

    A silent turn whose bank answers no question is left out, as nothing would judge it.

    Args:
      options: see above.
      encoder: embeds facts, to find the memories that are most like them.
      conversations: the dialogues of all turns.
      tuples: turns with linked questions.
      window: see `manager_tuples`.
      link: see `linked_questions`.
    """
    made = []
    for conversation in conversations:
        own = [item for item in tuples if item.conversation == conversation.id]
        silent = _silent(conversation, window, link)
        count = round(options.silent_turns * len(own))
        silent = [silent[i] for i in spread(len(silent), count)] if count else []
        likeness = _Likeness(encoder, conversation)
        places = {
            question: evidence_places(conversation, question)
            for question in conversation.questions
            if not question.abstain
        }
        for item in (*own, *silent):
            retained = _retained(conversation, item, places, likeness)
            retained = retained[: options.retention_questions]
            if item.questions or retained:
                later = _later(options.bank_depth, encoder, conversation, item)
                made.append(dataclasses.replace(item, retained=retained, later=later))
    return made


class _Likeness:
    """Compares facts of one conversation by the embedding that retrieval uses."""

    def __init__(self, encoder: Encoder, conversation: Conversation):
        texts = sorted({fact.text for fact in conversation.facts if fact.text.strip()}) or [""]
        self._keys = dict(zip(texts, encoder.keys(texts), strict=True))

    def __call__(self, memories: Sequence[Fact], facts: Sequence[Fact]) -> np.ndarray:
        """Returns for each memory the score of the fact that is most like it."""
        held, told = (np.stack([self._keys[f.text] for f in part]) for part in (memories, facts))
        return (held @ told.T).max(-1)


def _silent(conversation: Conversation, window: int | None, link: str) -> list[ManagerTuple]:
    """Lists the turns that tell a fact and that no question is linked to."""
    linked = linked_questions(conversation, link)
    return [
        manager_tuple(conversation, position, facts, window, ())
        for position in range(len(conversation.turns))
        if position not in linked and (facts := facts_of_turn(conversation, position))
    ]


def _retained(
    conversation: Conversation,
    item: ManagerTuple,
    places: dict[Question, tuple[int, ...]],
    likeness: _Likeness,
) -> tuple[Question, ...]:
    """Lists the questions that the banks before a turn answer, its own bank in part at least.

    Those come first whose memories are most like the facts of the turn: these are shown to the
    manager, and only what is shown can be spoiled.
    """
    own, other = item.banks[item.speaker], item.banks[1 - item.speaker]
    if not own:
        return ()
    scores: dict[int, float] = {}
    for fact, score in zip(own, likeness(own, item.facts), strict=True):
        turn = turn_of(conversation, fact)
        scores[turn] = max(float(score), scores.get(turn, -np.inf))
    held = scores.keys() | {turn_of(conversation, fact) for fact in other}
    known = {
        question: max(scores[turn] for turn in turns if turn in scores)
        for question, turns in places.items()
        if question not in item.questions and scores.keys() & set(turns) and set(turns) <= held
    }
    return tuple(sorted(known, key=lambda question: -known[question]))  # equal ones in order


def _later(
    depth: int, encoder: Encoder, conversation: Conversation, item: ManagerTuple
) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """Returns the facts of later turns that join each bank; room for what the turn adds is left."""
    sizes, final = encoder.sizes, facts_before(conversation, len(conversation.turns))
    later = []
    for name, held in zip(conversation.speakers, item.banks, strict=True):
        facts = [
            fact
            for fact in final
            if fact.speaker == name
            and fact.text.strip()
            and turn_of(conversation, fact) > item.turn
        ]
        free = sizes.bank_capacity - sizes.facts - len(held)
        count = max(0, min(depth - len(held), free))
        later.append(tuple(facts[i] for i in spread(len(facts), count)) if count else ())
    return later[0], later[1]
