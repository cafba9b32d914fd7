"""Two evaluations side by side, and how sure their difference is."""

import pytest

from memr1_jax.evals.answering import Prediction, summarise
from memr1_jax.evals.evaluator import Evaluation
from memr1_jax.evals.report.before_after import compare


def _evaluation(exact, ingestion, categories=(4, 4, 4, 1)):
    predictions = [
        Prediction(
            *("c", index, "?", "!", category, "", "", "whole", 1, True),
            scores={"category": category, "exact_match": score},
        )
        for index, (category, score) in enumerate(zip(categories, exact, strict=True))
    ]
    return Evaluation(summarise(predictions), predictions, ingestion)


def test_scores_by_category():
    before = _evaluation([0.0, 0.0, 1.0, 0.0], {"turns": 4.0, "add": 4.0, "gone": 0.0})
    after = _evaluation([1.0, 0.0, 1.0, 0.0], {"turns": 4.0, "add": 2.0, "cut": 1.0})
    found = compare({"before": before, "after": after})
    assert found.metrics == ("Exact match",)
    rows = {row.name: (row.count, row.cells[0], row.overall) for row in found.rows}
    assert list(rows) == ["multi-hop", "single-hop", "overall"]
    count, cell, overall = rows["single-hop"]
    assert count == 3 and not overall
    assert cell.values == pytest.approx((100 / 3, 200 / 3))
    assert cell.change == pytest.approx(100 / 3)
    assert cell.interval == pytest.approx((0, 100))
    count, cell, overall = rows["overall"]
    assert (count, cell.values, cell.change, overall) == (4, (25.0, 50.0), 25.0, True)
    assert rows["multi-hop"][1].interval is None  # one question
    assert found.counts == (
        ("turns with new facts", (4.0, 4.0)),
        ("ADD", (4.0, 2.0)),
        ("written texts that were cut", (None, 1.0)),
    )


def _asked(questions, exact):
    predictions = [
        Prediction(
            *("c", index, text, "!", 4, "", "", "whole", 1, True),
            scores={"category": 4, "exact_match": score},
        )
        for (index, text), score in zip(questions, exact, strict=True)
    ]
    return Evaluation(summarise(predictions), predictions, {})


def test_changes_are_over_the_same_questions_alone():
    asked = [(index, f"q{index}") for index in range(36)]
    before = _asked(asked, [0.0, 1.0, 0.0, 0.0, 1.0] + [0.0] * 31)
    after = _asked(asked[:5], [1.0, 1.0, 0.0, 1.0, 1.0])
    found = compare({"before": before, "after": after})
    cell = found.rows[-1].cells[0]
    assert cell.values == pytest.approx((100 * 2 / 36, 80.0))
    assert cell.change == pytest.approx(40.0)
    assert cell.interval[0] <= cell.change <= cell.interval[1]
    assert "36 and 5; 5 are the same" in found.note
    assert compare({"before": after, "after": after}).note == ""


def test_questions_of_other_dialogues_are_not_paired():
    first = _asked([(0, "q"), (1, "r")], [0.0, 0.0])
    second = _asked([(0, "Q"), (1, "R")], [1.0, 1.0])
    found = compare({"before": first, "after": second})
    assert (found.rows[-1].cells[0].change, found.rows[-1].cells[0].interval) == (None, None)
    assert "; 0 are the same" in found.note and "none has a change" in found.note


def test_one_evaluation_has_no_change():
    (row, _, _) = compare({"test": _evaluation([0.0, 0.0, 1.0, 0.0], {})}).rows
    assert (row.cells[0].change, row.cells[0].interval) == (None, None)


def test_adversarial_questions_are_not_in_the_mean():
    before = _evaluation([0.0, 1.0], {}, categories=(4, 5))
    after = _evaluation([1.0, 0.0], {}, categories=(4, 5))
    found = compare({"before": before, "after": after})
    overall = found.rows[-1]
    assert (overall.name, overall.cells[0].change, overall.cells[0].interval) == (
        *("overall", 100.0, None),
    )
