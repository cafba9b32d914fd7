"""Programs that are compiled ahead of their first call, in threads of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.run.ahead import AheadCompiler


def test_a_program_is_compiled_once_and_runs_on_arrays_of_its_shapes():
    traced = []

    @jax.jit
    def double(state, rows):
        traced.append(1)
        return {"x": state["x"] * 2}, rows.sum()

    state = {"x": jax.ShapeDtypeStruct((3,), jnp.float32)}
    with AheadCompiler() as ahead:
        ahead.start("double", double, state, np.zeros(2, np.int32))
        program = ahead.take("double", double)
    doubled, total = program({"x": jnp.arange(3.0)}, jnp.array([3, 4]))
    np.testing.assert_array_equal(doubled["x"], [0, 2, 4])
    assert int(total) == 7 and len(traced) == 1
    with pytest.raises(TypeError):
        program({"x": jnp.arange(4.0)}, jnp.array([3, 4]))


def test_what_was_not_started_is_called_as_it_is():
    with AheadCompiler() as ahead:
        assert ahead.take("double", abs) is abs


def test_an_error_of_compiling_is_raised_where_the_program_is_taken():
    @jax.jit
    def broken(x):
        raise ValueError("no shape fits")

    with AheadCompiler() as ahead:
        ahead.start("broken", broken, jnp.arange(3))
        with pytest.raises(ValueError, match="no shape fits"):
            ahead.take("broken", broken)
