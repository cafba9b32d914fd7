"""Figures over seeds, as numbers and as text.

Axis letters: S seeds.
"""

from collections.abc import Sequence

import numpy as np


def mean_interval(values: Sequence[float]) -> dict[str, float | None]:
    """Computes mean and half-width of the 95 percent interval of `values` `[S]` (Student's t).

    A single value has no interval: None.
    """
    from scipy.stats import t

    mean, half = float(np.mean(values)), None
    if len(values) > 1:
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        half = float(t.ppf(0.975, len(values) - 1) * error)
    return {"mean": mean, "half_width": half}


def interval_text(values: Sequence[float], form: str) -> str:
    """Spells mean and interval of `values` `[S]` in the format `form`; a lone value alone."""
    found = mean_interval(values)
    mean, half = found["mean"], found["half_width"]
    return f"{mean:{form}}" if half is None else f"{mean:{form}} ± {half:{form}}"
