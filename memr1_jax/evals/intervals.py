"""Percentile bootstrap: how sure a mean, or the difference of two rows of a table, is.

Questions of one conversation share its memories, so drawing single questions makes intervals too
narrow; drawing whole conversations makes them honest if there are enough of them.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from memr1_jax.errors import UserError

Key = tuple[str, int]  # conversation, index of the question in it
_CELLS = 1 << 22  # drawn numbers that are in memory together


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over questions with its bounds, which are None where nothing can be drawn.

    `count` is the number of questions, `groups` that of what was drawn: questions, or
    conversations. Fewer than two give no interval.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    groups: int


def by_question(predictions: Iterable, metric: str) -> dict[Key, float]:
    """Returns scores by conversation and question; predictions without the metric are left out.

    Raises:
      UserError: a question occurs twice.
    """
    found = {}
    for prediction in predictions:
        key = (prediction.conversation, prediction.index)
        if key in found:
            raise UserError(
                f"Question {key[1]} of conversation {key[0]} is answered twice in one row of the"
                " table. Remove one of the two from its predictions."
            )
        found[key] = prediction.scores.get(metric)
    return {key: float(value) for key, value in found.items() if value is not None}


def shared(first: Mapping[Key, float], second: Mapping[Key, float]) -> tuple[dict, dict]:
    """Returns both rows without the questions that only one of them has."""
    keys = [key for key in first if key in second]
    return {key: first[key] for key in keys}, {key: second[key] for key in keys}


def mean_by_questions(
    scores: Mapping[Key, float], *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Computes the mean score, and its interval when questions are drawn with replacement.

    Args:
      scores: one for each question; not empty.
      draws: bootstrap samples.
      seed: of the draws; the same seed gives the same interval.
      level: share of the bootstrap means between the bounds.
    """
    values = _values(scores)
    return _interval(values, np.ones_like(values), draws, seed, level)


def mean_by_conversations(
    scores: Mapping[Key, float], *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Computes the same mean over questions, with whole conversations drawn for the interval.

    A conversation brings all its questions with it (cluster bootstrap), so a drawn mean is again
    weighted by questions. Arguments as for `mean_by_questions`.
    """
    values = _values(scores)
    _, place = np.unique([conversation for conversation, _ in scores], return_inverse=True)
    return _interval(np.bincount(place, values), np.bincount(place), draws, seed, level)


def difference_by_questions(
    first: Mapping[Key, float], second: Mapping[Key, float], **options
) -> Interval:
    """Computes the mean of `first` less that of `second` over the same questions, drawn in pairs.

    Args:
      first: one score for each question.
      second: the same of another row of the table.
      **options: as for `mean_by_questions`.

    Raises:
      UserError: one of the two has a question that the other lacks; see `shared`.
    """
    return mean_by_questions(_difference(first, second), **options)


def difference_by_conversations(
    first: Mapping[Key, float], second: Mapping[Key, float], **options
) -> Interval:
    """Computes the same difference, with whole conversations drawn for the interval."""
    return mean_by_conversations(_difference(first, second), **options)


def _difference(first, second):
    only = sorted(set(first) ^ set(second))
    if only:
        conversation, index = only[0]
        raise UserError(
            f"Two rows of the table cannot be compared question by question: {len(only)} questions"
            f" have a score in one of them alone, such as question {index} of conversation"
            f" {conversation}. Evaluate both rows on the same questions."
        )
    return {key: value - second[key] for key, value in first.items()}


def _values(scores):
    if not scores:
        raise UserError("There is no interval for the mean of no questions.")
    return np.fromiter(scores.values(), np.float64, len(scores))


def _interval(sums, counts, draws, seed, level):
    """Bootstraps the ratio sums / counts, drawing their `[groups]` entries together."""
    groups, total = len(sums), int(counts.sum())
    mean = float(sums.sum() / total)
    if groups < 2:
        return Interval(mean, None, None, total, groups)
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // groups)
    means = []
    for start in range(0, draws, step):
        drawn = rng.integers(groups, size=(min(step, draws - start), groups))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return Interval(mean, float(low), float(high), total, groups)
