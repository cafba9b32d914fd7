"""How sure a difference between two evaluations of the same questions is."""

from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000


def paired_interval(
    before: Sequence[float], after: Sequence[float], seed: int = 0
) -> tuple[float, float] | None:
    """The 95 percent interval of the mean of `after - before`, by the paired bootstrap.

    Questions are drawn with replacement, each with both of its scores, and the percentiles of the
    mean difference are taken (Efron and Tibshirani, 1993, section 13.3).

    Args:
      before: a score for each question.
      after: scores of the same questions, in the same order.
      seed: of the draws.

    Returns:
      The lower and the upper end; None for fewer than two questions.
    """
    difference = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    if len(difference) < 2:
        return None
    rng = np.random.default_rng(seed)
    means = [
        difference[rng.integers(0, len(difference), len(difference))].mean()
        for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
