"""Checks that a run states what its dialogues lack before a model is loaded."""

import dataclasses
import json
import warnings

import numpy as np
import pytest

from memr1_jax.agents.demonstrations import Demonstrations
from memr1_jax.data.batches import AnswerData
from memr1_jax.data.dialogues import load_dialogues
from memr1_jax.data.synthetic import generate_conversations, write_synthetic
from memr1_jax.errors import UserError
from memr1_jax.inference.evaluation import evaluate
from memr1_jax.options import with_options
from memr1_jax.training.config import EvaluationConfig, ExperimentConfig, SFTConfig
from memr1_jax.training.experiment import Experiment
from memr1_jax.training.training_data import (
    check_dialogues,
    mixture_of,
    parts_by_step,
    training_banks,
)

TURNS = [
    {"speaker": "Ana", "text": "I live in Oslo.", "time": "1 May 2023"},
    {"speaker": "Ben", "text": "I like tea.", "time": "1 May 2023"},
]
WHERE = {"question": "Where does Ana live?", "answer": "Oslo", "evidence": ["D1:1"]}


def own(tmp_path, learned, evaluated=(WHERE,)):
    """Options of a run on two dialogues of one's own, with these questions."""
    path = tmp_path / "own.jsonl"
    records = [
        {"id": split, "split": split, "turns": TURNS, "questions": list(questions)}
        for split, questions in (("train", learned), ("validation", evaluated))
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return ExperimentConfig(data="own", data_path=str(path), output=str(tmp_path / "run"))


def check(options, tmp_path):
    check_dialogues(options, *load_dialogues(options, 0, tmp_path), tmp_path)


def test_dialogues_that_can_be_learned_from_pass(tmp_path):
    made = own(tmp_path, [WHERE])
    check(made, tmp_path)
    for changes in ({"select": "validation"}, {"horizon": "terminal"}, {"horizon": "branches"}):
        check(with_options(made, **changes), tmp_path)


@pytest.mark.parametrize(
    ("learned", "evaluated", "changes", "complaint"),
    [
        ([], [WHERE], {}, "--train_split=train ask no question"),
        ([], [WHERE], {"agent": "answer"}, "--train_split=train ask no question"),
        ([{"question": "Why?", "abstain": True}] * 2, [WHERE], {}, "All 2 questions .* abstain"),
        ([WHERE | {"evidence": []}], [WHERE], {}, '"evidence" to the questions.*--agent=answer'),
        ([WHERE], [], {}, "--eval_split=validation ask no question"),
        (
            [WHERE],
            [WHERE],
            {"reward": "recall,fresh", "agent": "manager"},
            "which memories are outdated.*recall,fresh",
        ),
        ([WHERE], [WHERE], {"training_banks": "gold"}, "which memory operations are right"),
        ([WHERE], [WHERE], {"algorithm": "sft"}, "nothing to demonstrate to the Memory Manager"),
    ],
)
def test_what_is_missing_is_told(tmp_path, learned, evaluated, changes, complaint):
    options = with_options(own(tmp_path, learned, evaluated), **changes)
    with pytest.raises(UserError, match=complaint):
        check(options, tmp_path)
    # A whole run says so before it looks for the model, which is not there.
    with pytest.raises(UserError, match=complaint):
        Experiment(dataclasses.replace(options, model=str(tmp_path / "no_model")))


def test_an_evaluation_of_nothing_is_refused_before_its_models(tmp_path):
    made = own(tmp_path, [WHERE], [])
    options = EvaluationConfig(
        data="own",
        data_path=made.data_path,
        eval_split="validation",
        model=str(tmp_path / "no_model"),
        output=str(tmp_path / "evaluated"),
    )
    with pytest.raises(UserError, match="nothing to evaluate on"):
        evaluate(options)


def test_what_is_not_needed_may_be_missing(tmp_path):
    check(dataclasses.replace(own(tmp_path, [WHERE], []), evaluate=False), tmp_path)
    without = own(tmp_path, [WHERE | {"evidence": []}])
    check(dataclasses.replace(without, agent="answer"), tmp_path)
    gold = dataclasses.replace(own(tmp_path, [WHERE]), training_banks="gold", agent="manager")
    check(gold, tmp_path)


def test_generated_dialogues_have_gold_operations(tmp_path):
    options = SFTConfig(training_banks="gold", synthetic_train=1, output=str(tmp_path))
    check(options, tmp_path)


def test_training_banks_follow_the_options():
    assert training_banks(ExperimentConfig()) == "manager"
    assert training_banks(SFTConfig()) == "add_all"
    assert training_banks(ExperimentConfig(training_banks="gold")) == "gold"


def test_turns_stand_for_facts_that_a_file_does_not_note(tmp_path):
    path = tmp_path / "plain.json"
    write_synthetic(path, 0, train=1, validation=1, test=0, num_sessions=2)
    options = ExperimentConfig(data="locomo", data_path=str(path))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "plain.json notes no facts")
        warnings.filterwarnings("error", ".*not a known edition")
        (noted, _) = load_dialogues(options, 0, tmp_path)
    records = json.loads(path.read_text())
    for record in records:
        del record["observation"], record["gold_operations"]
    path.write_text(json.dumps(records))
    with pytest.warns(UserWarning, match="plain.json notes no facts for 2 of 2 conversations"):
        (plain, _) = load_dialogues(options, 0, tmp_path)
    assert len(plain[0].facts) == len(plain[0].turns) != len(noted[0].facts)


def test_the_gap_between_sessions_is_a_setting(tmp_path):
    options = own(tmp_path, [WHERE])
    text = (tmp_path / "own.jsonl").read_text()
    text = text.replace("1 May 2023", "9:00 am on 1 May, 2023", 1)
    text = text.replace('"1 May 2023"', '"11:30 am on 1 May, 2023"', 1)
    (tmp_path / "own.jsonl").write_text(text)

    def sessions(**changes):
        (learned,), _ = load_dialogues(dataclasses.replace(options, **changes), 0, tmp_path)
        return len(learned.sessions)

    assert (sessions(), sessions(session_gap=2.0), sessions(session_gap=0.0)) == (1, 2, 2)
    for gap in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--session_gap"):
            sessions(session_gap=gap)


def test_the_rows_of_a_mixture_are_those_of_its_data_sets(capsys):
    dialogues = [
        dataclasses.replace(c, id=name, source=name)
        for name, c in zip(
            ("locomo", "synthetic", "msc"), generate_conversations(0, 3), strict=True
        )
    ]
    options = ExperimentConfig(data="locomo:1,synthetic:3,msc:2")
    drawn = AnswerData((), None, None, np.array([0, 0, 1, 1, 1]))
    made = mixture_of(options, dialogues, drawn)
    assert [(part.name, part.share, part.rows.tolist()) for part in made] == [
        ("locomo", 0.25, [0, 1]),
        ("synthetic", 0.75, [2, 3, 4]),
    ]
    assert "25% locomo (2 rows), 75% synthetic (3 rows)" in (said := capsys.readouterr().out)
    assert "nothing of msc" in said
    shown = Demonstrations(drawn, np.array([1, 4, 0]), None, None)
    assert [part.rows.tolist() for part in mixture_of(options, dialogues, shown)] == [[0, 2], [1]]
    assert mixture_of(ExperimentConfig(data="msc"), dialogues, drawn) == ()


def test_the_rows_of_a_curriculum_change_with_its_stages():
    made = generate_conversations(0, 2)
    dialogues = [dataclasses.replace(c, sessions_read=n) for c, n in zip(made, (2, 4), strict=True)]
    drawn = AnswerData((), None, None, np.array([0, 0, 1, 0, 1]))
    options = ExperimentConfig(data="synthetic", curriculum="2:3,4")
    parts = parts_by_step(options, dialogues, drawn)
    rows = [[part.rows.tolist() for part in parts(step)] for step in (0, 2, 3, 9)]
    assert rows == [[[0, 1, 3]], [[0, 1, 3]], [[2, 4]], [[2, 4]]]
    assert parts_by_step(ExperimentConfig(), dialogues, drawn)(0) == ()
