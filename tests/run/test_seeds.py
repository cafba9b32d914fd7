"""Figures over seeds, against hand-computed ones."""

import pytest

from memr1_jax.run.seeds import interval_text, mean_interval

# Half the width of the 95 percent interval of the mean of 1, 2, 3: the tabulated t of two degrees
# of freedom over the root of three.
HALF = 4.302653 / 3**0.5


def test_the_interval_is_students():
    found = mean_interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["half_width"] == pytest.approx(HALF, rel=1e-6)
    assert mean_interval([0.25]) == {"mean": 0.25, "half_width": None}


def test_the_interval_in_words():
    assert interval_text([1.0, 2.0, 3.0], ".2f") == "2.00 ± 2.48"
    assert interval_text([0.25], ".1f") == "0.2"
