"""The matrix product of projections, on CPUs in the form that their bfloat16 units run.

XLA's CPU compiler runs `bfloat16 x bfloat16 -> float32` in AVX512-BF16 or AMX instructions, twice
as fast as float32, but turns `bfloat16 x bfloat16 -> bfloat16` into the float32 product. So there,
and in the backward pass as well, the result is taken in float32 and then rounded, which is the same
number. Elsewhere it is the plain product: on a mesh float32 partial sums would travel.
"""

import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint

from memr1_jax.models.bits import as_bits, as_values, narrow_on_cpu, on_one_cpu

_BY_ROWS = Layout(major_to_minor=(0, 1))


def product(x: jax.Array, kernel: jax.Array, axes: int) -> jax.Array:
    """Multiplies `[..., *inputs]` by `[*inputs, *outputs]` over `axes` axes; one dtype."""
    if not on_one_cpu():
        return jnp.tensordot(x, kernel, axes=axes)
    # As matrices: XLA's CPU compiler refuses some bfloat16 products of more axes, and takes half as
    # long again for the gradients of float32 ones.
    lead, inputs, outputs = x.shape[: x.ndim - axes], kernel.shape[:axes], kernel.shape[axes:]
    width = math.prod(inputs)
    flat = x.reshape(-1, width), kernel.reshape(width, -1)
    result = _rounded(*flat) if narrow_on_cpu(x) else jnp.matmul(*flat)
    return result.reshape(*lead, *outputs)


def row_scores(x: jax.Array, table: jax.Array) -> jax.Array:
    """Multiplies `[..., D]` by the rows of `[V, D]` into float32 `[..., V]`; one dtype."""
    if narrow_on_cpu(x) and x.size == x.shape[-1]:
        # A single vector is run as a plain loop, nine times slower than two.
        return row_scores(jnp.broadcast_to(x, (2, *x.shape)), table)[0]
    return jnp.einsum("...d,vd->...v", x, table, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _rounded(x, kernel):
    return _contract(x, kernel, 1, 0)


def _forward(x, kernel):
    # Rematerialisation policies keep what is inside a custom rule only if it has a name.
    kept = checkpoint_name(as_bits(_contract(x, kernel, 1, 0)), "product")
    return as_values(kept), (x, kernel)


def _backward(operands, gradient):
    x, kernel = operands
    # Rows by columns and rows by rows are fast: only x has to be transposed in memory.
    columns = with_layout_constraint(x.T, _BY_ROWS)
    return _contract(gradient, kernel, 1, 1), _contract(columns, gradient, 1, 0)


_rounded.defvjp(_forward, _backward)


def _contract(a, b, axis_of_a, axis_of_b):
    axes = (((axis_of_a,), (axis_of_b,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32).astype(a.dtype)
