"""Folds of the training questions: held-out questions, and those that stay together."""

import dataclasses

from memr1_jax.data.augment import AugmentOptions, with_copies
from memr1_jax.data.folds import fold_of, hold_out
from memr1_jax.data.synthetic import generate_conversations


def _dialogues():
    """Dialogues as people have them, without gold operations."""
    made = generate_conversations(1, 3, num_sessions=10)
    return [dataclasses.replace(dialogue, operations=()) for dialogue in made]


def test_every_question_is_in_one_fold_and_all_of_a_turn_are_together():
    dialogues, held_out = _dialogues(), []
    for fold in range(4):
        learned, held = hold_out(dialogues, 4, fold)
        for dialogue, rest, part in zip(dialogues, learned, held, strict=True):
            assert {*rest.questions} | {*part.questions} == {*dialogue.questions}
            turns = [{q.evidence[-1] for q in made.questions} for made in (rest, part)]
            assert not turns[0] & turns[1]
            assert part.turns == rest.turns == dialogue.turns
            assert 0.05 < len(part.questions) / len(dialogue.questions) < 0.5
        held_out += [(c.id, q) for c in held for q in c.questions]
    assert len(held_out) == len({*held_out}) == sum(len(c.questions) for c in dialogues)


def test_folds_stay_what_they_were():
    questions = _dialogues()[0].questions[:12]
    assert [fold_of(question, 5) for question in questions] == [0, 3, 0, 1, 3, 3, 1, 4, 1, 3, 4, 4]


def test_copies_do_not_teach_what_is_held_out():
    dialogues = with_copies(_dialogues(), AugmentOptions(copies=2), 0)
    learned, held = hold_out(dialogues, 3, 1)
    assert [c.copy for c in held] == [0, 0, 0]
    for part in held:
        hidden = {question.index for question in part.questions}
        seen = [c for c in learned if c.id.split("~")[0] == part.id]
        assert len(seen) == 3 and not any(q.index in hidden for c in seen for q in c.questions)


def test_generated_dialogues_are_left_whole():
    made = generate_conversations(1, 2)
    assert hold_out(made, 3, 0) == (made, [])
