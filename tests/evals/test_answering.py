"""Predictions, their scores and the files that they become."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import row_of

from memr1_jax.data.tuples import spread
from memr1_jax.data.types import Question
from memr1_jax.errors import UserError
from memr1_jax.evals.answering import Prediction, predict, summarise
from memr1_jax.evals.evaluator import Evaluation
from memr1_jax.evals.report.report import read_evaluation, write_evaluation

RESPONSES = [
    "- Ana has a dog.\n**Answer:** Rex",
    "**Answer:** a green tea",
    "Lyon",
    "**Answer:** 7 May 2023\nThat is all.",
    "**Answer:** Rex and",
]
QUESTIONS = [
    ("c1", Question("Who is the dog?", "Rex", 4, (), 0)),
    ("c1", Question("What does Ana drink?", "green tea", 1, (), 3)),
    ("c2", Question("Where does Ana live?", "Oslo", 4, (), 1)),
    ("c2", Question("When did Ana leave?", "7 May 2023", 2, (), 2)),
    ("c2", Question("Who is the dog?", "Rex", 3, (), 5)),
]
WIDTH = 48


@pytest.fixture(scope="module")
def predictions(tiny):
    """Predictions of a stand-in for the compiled program, and the batches that it was asked for."""
    rows = [row_of(tiny, text, WIDTH, stop=text != RESPONSES[4]) for text in RESPONSES]
    tokens, length = (np.array(part) for part in zip(*rows, strict=True))
    stopped, asked, told = length > 0, [], []
    stopped[4] = False

    def answer(params, tools, data, rows, valid):
        assert (params, tools) == ("params", "tools")
        asked.append((rows.tolist(), valid.tolist()))
        rows = np.asarray(rows)
        one = SimpleNamespace(
            tokens=tokens[rows][:, None],
            length=length[rows][:, None],
            stopped=stopped[rows][:, None],
        )
        return SimpleNamespace(samples=one)

    found = predict(
        answer,
        "params",
        "tools",
        SimpleNamespace(rows=len(QUESTIONS)),
        QUESTIONS,
        tiny.model.tokenizer,
        batch=2,
        on_batch=lambda done, total: told.append((done, total)),
    )
    return found, asked, told


def test_batches_are_padded_and_the_padding_is_left_out(predictions):
    found, asked, told = predictions
    assert asked == [([0, 1], [True, True]), ([2, 3], [True, True]), ([4, 4], [True, False])]
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert [(p.conversation, p.index, p.gold) for p in found] == [
        (identity, question.index, question.answer) for identity, question in QUESTIONS
    ]


def test_predictions_hold_text_answer_rule_and_scores(predictions, tiny):
    found, _, _ = predictions
    assert [p.response for p in found] == RESPONSES  # without the end token
    assert [p.answer for p in found] == ["Rex", "a green tea", "Lyon", "7 May 2023", "Rex and"]
    assert [p.rule for p in found] == ["bold_label", "bold_label", "whole", *["bold_label"] * 2]
    assert [p.stopped for p in found] == [True, True, True, True, False]
    assert found[0].tokens == len(tiny.encode(RESPONSES[0])) + 1
    assert [p.scores["exact_match"] for p in found] == [1, 1, 0, 1, 0]
    assert found[4].scores["f1_set_of_words"] == pytest.approx(2 / 3)


def test_the_summary_weighs_categories_by_their_size(predictions):
    summary = summarise(predictions[0])
    exact = {entry["category"]: entry["exact_match"] for entry in summary}
    assert exact == {1: 1, 3: 0, 4: 0.5, 2: 1, None: 0.6}
    assert [entry["count"] for entry in summary] == [1, 1, 2, 1, 5]


@pytest.mark.parametrize(
    "total, limit, expected",
    [(5, 0, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (4, 1, [0])],
)
def test_limited_questions_are_evenly_spread(total, limit, expected):
    assert spread(total, limit) == expected


def test_report_files_round_trip(predictions, tmp_path):
    found, _, _ = predictions
    evaluation = Evaluation(summarise(found), found, {"add": 3.0, "turns": 4.0})
    assert evaluation.overall["exact_match"] == pytest.approx(0.6)
    write_evaluation(tmp_path, "before", evaluation, "validation")
    assert read_evaluation(tmp_path, "before") == evaluation
    assert read_evaluation(tmp_path, "after") is None
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"predictions_before.jsonl", "evaluation_before.md", "evaluation_before.json"}
    stored = json.loads((tmp_path / "evaluation_before.json").read_text())
    assert (stored["split"], stored["questions"]) == ("validation", 5)
    assert stored["manager"] == evaluation.ingestion
    lines = (tmp_path / "predictions_before.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == dataclasses.asdict(found[1])
    assert "| 60.00 |" in (tmp_path / "evaluation_before.md").read_text()


@pytest.mark.parametrize(
    ("name", "written", "damaged"),
    [
        ("predictions_after.jsonl", '"exact_match": 1.0', '"exact_match": 3.0'),
        ("predictions_after.jsonl", '"exact_match"', '"exact_watch"'),
        ("predictions_after.jsonl", '"category": 4', '"category": 0'),
        ("evaluation_after.json", '"count": 1', '"count": 9'),
        ("evaluation_after.json", '"manager"', '"mansger"'),
    ],
)
def test_figures_that_do_not_agree_are_damage(tmp_path, name, written, damaged):
    scores = {"category": 4, "exact_match": 1.0}
    one = Prediction("c", 0, "q", "g", 4, "r", "g", "whole", 1, True, scores)
    write_evaluation(tmp_path, "after", Evaluation(summarise([one]), [one], {"turns": 1.0}), "test")
    assert read_evaluation(tmp_path, "after").predictions == [one]
    text = (tmp_path / name).read_text()
    assert written in text
    (tmp_path / name).write_text(text.replace(written, damaged))
    with pytest.raises(UserError, match=f"Remove {tmp_path}/evaluation_after.json"):
        read_evaluation(tmp_path, "after")


def test_line_breaks_and_half_characters_survive_the_round_trip(predictions, tmp_path):
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\rj\nk"
    found = [
        dataclasses.replace(p, question=odd, gold=odd + "\ud83d", response=odd, answer=odd)
        for p in predictions[0]
    ]
    write_evaluation(tmp_path, "after", Evaluation(summarise(found), found, {}), "test")
    read = read_evaluation(tmp_path, "after").predictions
    assert read == [dataclasses.replace(p, gold=odd + "\ufffd") for p in found]
    # As earlier versions wrote them.
    lines = [json.dumps(dataclasses.asdict(p), ensure_ascii=False) + "\n" for p in read]
    (tmp_path / "predictions_after.jsonl").write_text("".join(lines), encoding="utf-8")
    assert read_evaluation(tmp_path, "after").predictions == read


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"index": 1}', '{"index"', "null", "\0"])
@pytest.mark.parametrize("name", ["predictions_after.jsonl", "evaluation_after.json"])
def test_damaged_evaluations_are_told_with_a_way_on(predictions, tmp_path, name, text):
    found, _, _ = predictions
    write_evaluation(tmp_path, "after", Evaluation(summarise(found), found, {}), "test")
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}.*Remove .*evaluation_after.json"):
        read_evaluation(tmp_path, "after")


def test_an_evaluation_that_was_cut_off_does_not_count(predictions, tmp_path):
    found, _, _ = predictions
    write_evaluation(tmp_path, "after", Evaluation(summarise(found), found, {}), "test")
    (tmp_path / "evaluation_after.json").unlink()
    assert read_evaluation(tmp_path, "after") is None
