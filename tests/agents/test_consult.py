"""A function of many rows, computed a part at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.agents.consult import in_parts


@pytest.mark.parametrize(("size", "widths"), [(0, {7}), (7, {7}), (9, {7}), (3, {3}), (1, {1})])
def test_parts_give_what_the_whole_gives(size, widths):
    rows = {"x": jnp.arange(14.0).reshape(7, 2), "on": jnp.arange(7) % 2 == 0}
    seen = set()

    def function(part):
        seen.add(len(part["on"]))
        return jnp.where(part["on"][:, None], part["x"] ** 2, -1.0), part["x"].sum(-1)

    squares, sums = in_parts(function, rows, size)
    expected = np.where(np.arange(7)[:, None] % 2 == 0, np.arange(14).reshape(7, 2) ** 2, -1)
    np.testing.assert_array_equal(squares, expected)
    np.testing.assert_array_equal(sums, np.arange(14).reshape(7, 2).sum(-1))
    assert seen == widths


def test_a_part_takes_the_memory_of_its_rows_alone():
    def needed(size):
        function = jax.jit(lambda x: in_parts(_wide, x, size))
        analysis = function.lower(jnp.ones((64, 100))).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    assert needed(8) < needed(0) / 4


def _wide(x):
    """Sums over an array that has to exist: sorting cannot be fused."""
    return jnp.sort(x[:, :, None] * jnp.sin(jnp.arange(1000.0)), axis=-1)[..., ::7].sum((1, 2))
