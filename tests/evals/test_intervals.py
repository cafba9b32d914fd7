"""Bootstrap intervals: small cases by hand, and whether they cover what they should."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.evals.intervals import (
    by_question,
    difference_by_questions,
    mean_by_conversations,
    mean_by_questions,
    shared,
)


def row(**conversations):
    return {(c, i): v for c, values in conversations.items() for i, v in enumerate(values)}


def test_two_questions_by_hand():
    """Means 0, 1/2, 1 are drawn with probabilities 1/4, 1/2, 1/4."""
    scores = row(a=[0.0, 1.0])
    wide = mean_by_questions(scores)
    assert (wide.mean, wide.low, wide.high, wide.count, wide.groups) == (0.5, 0, 1, 2, 2)
    narrow = mean_by_questions(scores, level=0.4)  # between the quantiles 0.3 and 0.7
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_bounds_are_those_of_all_possible_draws():
    values = [0.0, 0.1, 0.35, 1.0]
    every = [np.mean(draw) for draw in itertools.product(values, repeat=4)]
    found = mean_by_questions(row(a=values), draws=200_000, level=0.8)
    assert [found.low, found.high] == pytest.approx(np.quantile(every, [0.1, 0.9]).tolist())


def test_conversations_keep_their_questions_together():
    """Draws both twice (2/3 or 0), or each once (2 of 4 right); a and b weigh by their size."""
    scores = row(a=[1, 1, 0], b=[0])
    found = mean_by_conversations(scores)
    assert (found.mean, found.count, found.groups) == (0.5, 4, 2)
    assert (found.low, found.high) == pytest.approx((0, 2 / 3))
    inner = mean_by_conversations(scores, level=0.4)
    assert (inner.low, inner.high) == pytest.approx((0.5, 0.5))


def test_equal_scores_have_no_spread_and_one_group_no_interval():
    flat = mean_by_questions(row(a=[0.3, 0.3], b=[0.3]))
    assert (flat.low, flat.high) == pytest.approx((0.3, 0.3))
    alone = mean_by_conversations(row(a=[0.0, 1.0]))
    assert (alone.mean, alone.low, alone.high, alone.groups) == (0.5, None, None, 1)
    assert mean_by_questions(row(a=[1.0])).low is None


def test_the_seed_decides_and_chunks_do_not(monkeypatch):
    scores = row(a=list(np.random.default_rng(0).random(50)))
    whole = mean_by_questions(scores, draws=2000)
    assert whole == mean_by_questions(scores, draws=2000)
    assert whole != mean_by_questions(scores, draws=2000, seed=1)
    monkeypatch.setattr("memr1_jax.evals.intervals._CELLS", 1)
    assert whole == mean_by_questions(scores, draws=2000)


def test_differences_are_paired():
    """Checks that a row better by 0.1 on every question is better without doubt."""
    rng = np.random.default_rng(1)
    values = rng.random(40)
    first, second = row(a=values[:20] + 0.1, b=values[20:] + 0.1), row(a=values[:20], b=values[20:])
    second = dict(reversed(second.items()))  # aligned by key, not by order
    found = difference_by_questions(first, second, draws=500)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    alone = mean_by_questions(first, draws=500)
    assert alone.high - alone.low > 0.1


def test_rows_that_do_not_align_are_refused():
    first, second = row(a=[1, 0], b=[1]), row(a=[1, 0, 1])
    with pytest.raises(UserError, match="2 questions have a score in one of them alone.*2 of conv"):
        difference_by_questions({**first, ("a", 7): 1}, {**first, ("a", 2): 1})
    with pytest.raises(UserError, match="same questions"):
        difference_by_questions(first, second)
    left, right = shared(first, second)
    assert left == right == {("a", 0): 1, ("a", 1): 0}
    with pytest.raises(UserError, match="no questions"):
        mean_by_questions({})


def test_scores_of_predictions_by_question():
    def made(index, **scores):
        return SimpleNamespace(conversation="a", index=index, scores=scores)

    rows = [made(3, em=1.0), made(0, em=0.0, judge=1.0), made(4, judge=None)]
    assert by_question(rows, "em") == {("a", 3): 1, ("a", 0): 0}
    assert by_question(rows, "judge") == {("a", 0): 1}
    with pytest.raises(UserError, match="Question 3 of conversation a is answered twice"):
        by_question([*rows, made(3, em=0.0)], "em")


def covered(interval, truth):
    return interval.low <= truth <= interval.high


def test_coverage_of_independent_questions():
    """Checks that 95 % intervals hold the true mean in about 95 % of 400 sets of 100 questions."""
    rng = np.random.default_rng(2)
    hits = [
        covered(mean_by_questions(row(a=values), draws=400), 0.3)
        for values in (rng.random((400, 100)) < 0.3).astype(float)
    ]
    assert 0.91 <= np.mean(hits) <= 0.98


def test_coverage_when_conversations_differ():
    """Checks that only drawing conversations covers where conversations have their own means."""
    rng = np.random.default_rng(3)
    by_questions, by_conversations = [], []
    for _ in range(200):
        values = rng.normal(rng.normal(0.5, 0.2, (20, 1)), 0.3, (20, 25))
        scores = row(**{f"c{number}": line for number, line in enumerate(values)})
        by_questions.append(covered(mean_by_questions(scores, draws=300), 0.5))
        by_conversations.append(covered(mean_by_conversations(scores, draws=300), 0.5))
    assert 0.88 <= np.mean(by_conversations) <= 0.98
    assert np.mean(by_questions) < 0.6
