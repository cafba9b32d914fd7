"""Makes the nano model's judge in small: its examples, and that it learns from them."""

import json

import numpy as np
import pytest

from memr1_jax.agents.agent_pair import build_agent_pair, load_models
from memr1_jax.errors import UserError
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.options import with_options
from memr1_jax.studies.ablation_cells import AblationsConfig
from memr1_jax.studies.learning import LearningConfig
from memr1_jax.studies.nano import NANO_SIZES, NanoConfig, nano_dialogues
from memr1_jax.studies.nano_judge import (
    NanoJudgeConfig,
    Shown,
    make_nano_judge,
    right_by_kind,
    shown_answers,
)
from memr1_jax.training.config import ExperimentConfig

RIGHT = {"the right answer", "a memory that holds it", "it and another value"}
WRONG = {"another memory", "another value", "two other values", "a part of it"}
SMALL = {"steps": 60, "dialogues": 30, "test_dialogues": 5, "batch": 32}


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("Lyon", "Ana lives in Lyon.", True),
        ("the green tea", "A green tea!", True),
        ("tea", "teapot", False),
        ("16 May 2023", "16 May 2022", False),
        ("16 May 2023", "May 2023", False),
        ("Lyon", "", False),
        ("the", "the", True),  # its words are kept where nothing else is left
        ("the", "a", False),
    ],
)
def test_an_answer_is_right_if_it_holds_the_words_of_the_right_one(gold, answer, right):
    assert Shown("Why?", gold, answer, "").right == right


def test_every_kind_of_answer_is_shown_and_is_what_its_name_says():
    dialogues = nano_dialogues(5, 8)
    shown = list(shown_answers(dialogues, 3))
    assert shown == list(shown_answers(dialogues, 3)) != list(shown_answers(dialogues, 4))
    assert {one.kind for one in shown} == RIGHT | WRONG
    assert all(one.right == (one.kind in RIGHT) for one in shown)
    asked = {(q.question, q.answer) for dialogue in dialogues for q in dialogue.questions}
    assert {(one.question, one.gold) for one in shown} == asked


def test_no_comparison_is_made_on_dialogues_whose_answers_were_shown():
    seed = NanoJudgeConfig().seed
    assert NanoConfig().seed + 14 < seed
    assert seed + 1 < min(LearningConfig().seed, AblationsConfig().seed)


def test_options_without_any_are_refused(tmp_path):
    with pytest.raises(UserError, match="--steps=0 must be at least 1"):
        make_nano_judge(NanoJudgeConfig(output=str(tmp_path), steps=0))


def test_the_package_ships_the_judge_and_it_marks_answers(tmp_path):
    folder = resolve_model("nano_judge")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2e6
    settings = with_options(
        ExperimentConfig(), model="nano", reward="judge", judge_model="nano_judge", **NANO_SIZES
    )
    models = load_models(settings)
    dialogues = nano_dialogues(3, 6, split="validation")
    pair = build_agent_pair(settings, models, dialogues)
    shown = list(shown_answers(dialogues, 3))
    marked = right_by_kind(pair, shown, models.judge.params)
    assert marked["all"]["count"] == len(shown)
    assert all(found["right"] > 0.75 for found in marked.values())
    assert marked["all"]["right"] > 0.9


@pytest.mark.slow
def test_the_judge_learns_and_the_same_seed_makes_the_same_one(tmp_path):
    from safetensors.numpy import load_file

    made = [make_nano_judge(NanoJudgeConfig(output=str(tmp_path / name), **SMALL)) for name in "ab"]
    first, again = (load_file(folder / "model.safetensors") for folder in made)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["judge"]["all"]["right"] > report["nano"]["all"]["right"]
    assert report["judge"].keys() == RIGHT | WRONG | {"all"}
