"""Curricula: stages by step, and the dialogues of each stage."""

import dataclasses

import pytest

from memr1_jax.data.curriculum import CurriculumStage, first_sessions, parse_curriculum, stage_at
from memr1_jax.data.dialogues import DataConfig, load_dialogues
from memr1_jax.data.synthetic import generate_conversations
from memr1_jax.errors import UserError


def test_stages_follow_one_another():
    stages = parse_curriculum("8:40, 16:10,32")
    assert stages == (CurriculumStage(8, 40), CurriculumStage(16, 50), CurriculumStage(32, None))
    found = [stage_at(stages, step).sessions for step in (0, 39, 40, 49, 50, 10_000)]
    assert found == [8, 8, 16, 16, 32, 32]
    assert parse_curriculum("") == () and parse_curriculum("4") == (CurriculumStage(4, None),)


@pytest.mark.parametrize("text", ["8,16", "8:4", "8:4,8", "16:4,8", "0:4,8", "a:4,8", "8:0,9", ","])
def test_what_is_no_curriculum_is_told(text):
    with pytest.raises(UserError, match="as 8:40,16:40,32"):
        parse_curriculum(text)


def test_a_cut_dialogue_asks_what_it_has_told():
    (whole,) = generate_conversations(0, 1, num_sessions=6)
    whole = dataclasses.replace(whole, operations=())
    cut = first_sessions(whole, 3)
    told = {turn.dia_id for turn in cut.turns}
    assert cut.sessions == whole.sessions[:3] and 0 < len(cut.questions) < len(whole.questions)
    assert all(told >= {*question.evidence} for question in cut.questions)
    assert all(fact.session <= 3 for fact in cut.facts) and len(cut.facts) > 5
    assert first_sessions(whole, 9) == whole


def test_generated_dialogues_of_a_stage_begin_alike_and_are_true_at_their_end(tmp_path):
    options = DataConfig(
        data="synthetic",
        synthetic_train=2,
        synthetic_sessions=4,
        curriculum="2:5,4",
    )
    train, evaluation = load_dialogues(options, 3, tmp_path)
    assert [c.id for c in train] == ["train-3-0@2", "train-3-1@2", "train-3-0@4", "train-3-1@4"]
    assert [c.sessions_read for c in train] == [2, 2, 4, 4] and not evaluation[0].sessions_read
    for short, long in zip(train[:2], train[2:], strict=True):
        assert short.sessions == long.sessions[:2]
        assert short.operations == long.operations[: len(short.operations)]
    assert (
        train[0].questions
        == generate_conversations(3, 1, num_sessions=2, facts_per_session=4)[0].questions
    )
    plain, _ = load_dialogues(dataclasses.replace(options, curriculum=""), 3, tmp_path)
    assert [c.questions for c in plain] == [c.questions for c in train[2:]]
