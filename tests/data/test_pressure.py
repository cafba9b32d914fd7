"""Questions that a wrong edit spoils, turns without a question, and banks as deep as at the end."""

import numpy as np
import pytest
from tiny_model import make_tiny

from memr1_jax.data.encode import encode_manager_data
from memr1_jax.data.pressure import PressureOptions, with_pressure
from memr1_jax.data.synthetic import generate_conversations
from memr1_jax.data.tuples import evidence_places, linked_questions, manager_tuples, turn_of


@pytest.fixture(scope="module")
def dialogues():
    return generate_conversations(5, 3, num_sessions=4, facts_per_session=4, repeats=0.2)


def _pressed(dialogues, **options):
    encoder = make_tiny(retention_questions=2).pair.encoder
    tuples = [item for c in dialogues for item in manager_tuples(c, None)]
    return tuples, with_pressure(PressureOptions(**options), encoder, dialogues, tuples)


def test_without_pressure_turns_are_what_they_were(dialogues):
    tuples, pressed = _pressed(dialogues)
    assert pressed == tuples
    data = encode_manager_data(make_tiny().pair.encoder, dialogues, pressed)
    assert data.late is None and data.queries.evidence is None


def test_retention_questions_are_answered_by_the_bank_before(dialogues):
    tuples, pressed = _pressed(dialogues, retention_questions=2)
    assert len(pressed) == len(tuples)
    kept = 0
    for item in pressed:
        conversation = next(c for c in dialogues if c.id == item.conversation)
        held = {turn_of(conversation, fact) for bank in item.banks for fact in bank}
        own = {turn_of(conversation, fact) for fact in item.banks[item.speaker]}
        assert len(item.retained) <= 2
        for question in item.retained:
            places = set(evidence_places(conversation, question))
            assert places <= held and places & own and question not in item.questions
            kept += 1
    assert kept > len(tuples) / 2


def test_the_memories_most_like_the_facts_are_asked_for_first(dialogues):
    texts = sorted({fact.text for c in dialogues for fact in c.facts})
    key = dict(zip(texts, make_tiny().pair.encoder.keys(texts), strict=True))
    _, pressed = _pressed(dialogues, retention_questions=100)
    compared = 0
    for item in pressed:
        conversation = next(c for c in dialogues if c.id == item.conversation)
        score = {
            turn_of(conversation, fact): max(key[fact.text] @ key[new.text] for new in item.facts)
            for fact in item.banks[item.speaker]
        }
        best = [
            max(score[turn] for turn in evidence_places(conversation, q) if turn in score)
            for q in item.retained
        ]
        np.testing.assert_array_less(best[1:], np.array(best[:-1]) + 1e-6)
        compared += len(best) > 1
    assert compared


def test_silent_turns_have_no_question_and_are_judged_by_what_is_kept(dialogues):
    few = [  # conversations in which some turn with facts has no question
        c for c in dialogues if any(turn_of(c, f) not in linked_questions(c) for f in c.facts)
    ]
    assert few
    tuples, pressed = _pressed(few, retention_questions=1, silent_turns=10.0)
    silent = [item for item in pressed if not item.questions]
    assert silent and len(pressed) == len(tuples) + len(silent)
    assert all(item.retained and item.facts for item in silent)
    data = encode_manager_data(make_tiny(retention_questions=2).pair.encoder, few, pressed)
    rows = [place for place, item in enumerate(pressed) if not item.questions]
    assert data.asked[rows].sum() == len(rows)


def test_turns_that_add_nothing_are_no_evidence(dialogues):
    for conversation in dialogues:
        quiet = {
            turn_of(conversation, conversation.facts[operation.fact])
            for operation in conversation.operations
            if not operation.event.writes
        }
        for question in conversation.questions:
            places = evidence_places(conversation, question)
            told = {conversation.positions[turn] for turn in question.evidence}
            assert places and set(places) == told - quiet


def test_banks_reach_their_depth_with_facts_that_are_told_later(dialogues):
    _, pressed = _pressed(dialogues, bank_depth=5)
    depths = []
    for item in pressed:
        conversation = next(c for c in dialogues if c.id == item.conversation)
        for held, later in zip(item.banks, item.later, strict=True):
            assert len(held) + len(later) <= max(5, len(held))
            assert all(turn_of(conversation, fact) > item.turn for fact in later)
            depths.append(len(held) + len(later))
    assert max(depths) >= 5
