"""The product of projections: equal to the plain one, in a form that CPUs run fast."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.models.product import product, row_scores
from memr1_jax.parallel.activations import on_mesh
from memr1_jax.parallel.mesh import make_mesh

SHAPES = [((3, 5, 8), (8, 6), 1), ((4, 2, 3), (2, 3, 7), 2), ((8,), (8, 2, 3), 1)]


def _inputs(shape, kernel_shape, dtype):
    keys = jax.random.split(jax.random.key(0), 2)
    return (
        jax.random.normal(keys[0], shape, jnp.float32).astype(dtype),
        jax.random.normal(keys[1], kernel_shape, jnp.float32).astype(dtype),
    )


def _dots(function, *arguments):
    """Returns the dtypes that the products of a program return."""
    equations = jax.make_jaxpr(function)(*arguments).jaxpr.eqns
    found = []
    while equations:
        equation = equations.pop()
        if equation.primitive.name == "dot_general":
            found.append(equation.outvars[0].aval.dtype)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            equations += list(getattr(inner, "eqns", []))
    return found


@pytest.mark.parametrize("shape, kernel_shape, axes", SHAPES)
def test_value_and_gradients_are_the_float32_ones_rounded(shape, kernel_shape, axes):
    x, kernel = _inputs(shape, kernel_shape, jnp.bfloat16)
    wide = tuple(array.astype(jnp.float32) for array in (x, kernel))
    value, pull = jax.vjp(lambda x, kernel: product(x, kernel, axes), x, kernel)
    expected, pull_wide = jax.vjp(lambda x, kernel: jnp.tensordot(x, kernel, axes), *wide)
    assert value.dtype == jnp.bfloat16
    np.testing.assert_array_equal(value, expected.astype(jnp.bfloat16))
    gradients = pull(jnp.ones_like(value))
    for found, right in zip(gradients, pull_wide(jnp.ones_like(expected)), strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_array_equal(found, right.astype(jnp.bfloat16))


def test_every_product_of_bfloat16_on_a_cpu_is_taken_in_float32():
    def loss(x, kernel):
        return product(x, kernel, 1).astype(jnp.float32).sum()

    found = _dots(jax.grad(loss, argnums=(0, 1)), *_inputs((3, 8), (8, 6), jnp.bfloat16))
    assert len(found) >= 2 and set(found) == {jnp.dtype(jnp.float32)}


def test_on_a_mesh_the_product_is_the_plain_one():
    # A program for a TPU may be compiled on a machine whose own backend is a CPU.
    inputs = _inputs((3, 8), (8, 6), jnp.bfloat16)
    with on_mesh(make_mesh("data:1,fsdp:1,tensor:1")):
        assert _dots(lambda x, kernel: product(x, kernel, 1), *inputs) == [jnp.bfloat16]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("lead", [(), (1,), (1, 1), (3,), (2, 2)])
def test_row_scores_are_products_with_every_row(lead, dtype):
    x, table = _inputs((*lead, 8), (16, 8), dtype)
    scores = row_scores(x, table)
    assert scores.dtype == jnp.float32
    wide = np.einsum("...d,vd->...v", x.astype(np.float32), table.astype(np.float32))
    np.testing.assert_allclose(scores, wide, rtol=1e-5, atol=1e-5)
