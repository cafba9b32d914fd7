"""One softmax over the keys of several blocks, all scores at once.

Axis letters are those of `models/attention.py`. Keys with `J` leading rows belong to queries with
`J * X` rows; arrays `[rows, ...]` have a row for each of the queries'.

On a CPU the backward pass is written out: it keeps what was found, with the maximum and the sum of
each softmax, and computes the weights again. What JAX derives keeps or computes all steps of the
softmax, and transposes the scores' gradient in memory, which takes longer than a product with it.
"""

import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from memr1_jax.models.bits import as_bits, as_values, on_one_cpu

HIDDEN = -1e30  # score of a key that is not visible


def mix(
    query: jax.Array,
    keys: tuple[jax.Array, ...],
    values: tuple[jax.Array, ...],
    visible: tuple[jax.Array, ...],
) -> jax.Array:
    """Mixes values by one softmax over all keys; keeps the shape `[*lead, T, N, H]` of `query`.

    Exact, gradients included: the blocks share one maximum and one sum. Scores and the sum are
    float32. Every query must see at least one key.

    Args:
      query: the queries.
      keys: `[*lead, K, S, H]` of each block.
      values: the same.
      visible: tells which keys are seen, broadcasts to `[J, K, X, T, M, S]` of each block.
    """
    if on_one_cpu():
        return _mix_by_rule(query, keys, values, visible)
    return _mix(query, keys, values, visible)[0]


def _mix(query, keys, values, visible):
    """Returns what was found, and the maximum and sum of each softmax, `[rows, K, T, M]`."""
    queries = _grouped(query, keys) * _scale(query)
    scores = [_scores(queries, *given) for given in zip(keys, visible, strict=True)]
    # A block may be empty: its maximum is the score of a hidden key.
    peak = [_to_rows(score.max(axis=-1, initial=HIDDEN)) for score in scores]
    peak = jax.lax.stop_gradient(_reduce(jnp.maximum, peak))

    total, mixed = [], []
    for score, value in zip(scores, values, strict=True):
        weight = jnp.exp(score - _from_rows(peak, score.shape[0])[..., None])
        total.append(_to_rows(weight.sum(axis=-1)))
        part = jnp.einsum(
            "jkxtms,jksh->jkxtmh",
            weight.astype(value.dtype),
            _flat(value),
            preferred_element_type=jnp.float32,
        )
        mixed.append(_to_rows(part))
    total = _reduce(jnp.add, total)
    output = _reduce(jnp.add, mixed) / total[..., None]  # [rows, K, T, M, H]
    output = output.transpose(0, 2, 1, 3, 4).astype(query.dtype)
    return output.reshape(query.shape), peak, total


def _scores(queries, key, visible):
    """Computes `[J, K, X, T, M, S]` of queries `[rows, T, K, M, H]`."""
    key = _flat(key)
    queries = queries.reshape(len(key), len(queries) // len(key), *queries.shape[1:])
    score = jnp.einsum("jxtkmh,jksh->jkxtms", queries, key, preferred_element_type=jnp.float32)
    return jnp.where(visible, score, HIDDEN)


@jax.custom_vjp
def _mix_by_rule(query, keys, values, visible):
    return _mix(query, keys, values, visible)[0]


def _forward(query, keys, values, visible):
    output, peak, total = _mix(query, keys, values, visible)
    # Named, so that rematerialisation need not compute the scores twice.
    output = as_values(checkpoint_name(as_bits(output), "attended"))
    peak, total = (checkpoint_name(array, "attended") for array in (peak, total))
    return output, (query, keys, values, visible, output, peak, total)


def _backward(kept, gradient):
    query, keys, values, visible, output, peak, total = kept
    # In float32, as sums over queries have to be.
    queries, output, gradient = (
        jnp.swapaxes(_grouped(array, keys), 1, 2).astype(jnp.float32)
        for array in (query * _scale(query), output, gradient)
    )  # [rows, K, T, M, H]
    gradient = gradient / total[..., None]
    rows = queries, gradient, peak, (gradient * output).sum(axis=-1)
    blocks = zip(keys, values, visible, strict=True)
    of_queries, of_keys, of_values = zip(
        *(_of_block(rows, *block) for block in blocks), strict=True
    )
    of_query = jnp.swapaxes(_reduce(jnp.add, of_queries), 1, 2).reshape(query.shape)
    return (of_query * _scale(query)).astype(query.dtype), of_keys, of_values, (None,) * len(keys)


_mix_by_rule.defvjp(_forward, _backward)


def _of_block(rows, key, value, visible):
    """Returns gradients of queries, keys and values by what queries find in one block.

    `rows` are the scaled queries and the output's gradient divided by the sum of weights, each
    `[rows, K, T, M, H]`; then, `[rows, K, T, M]`, the maximum of each query's scores and the mean
    that softmax takes off the gradients of its weights.
    """
    wide_key, wide_value = (_flat(array).astype(jnp.float32) for array in (key, value))
    rows = [_from_rows(array, len(wide_key)) for array in rows]
    shape = rows[2].shape  # [J, K, X, T, M]
    queries, gradient, peak, mean = (
        array.reshape(*shape[:2], math.prod(shape[2:]), *array.shape[5:]) for array in rows
    )
    score = _product(queries, wide_key, 3, 3)
    score = jnp.where(visible, score.reshape(*shape, key.shape[-2]), HIDDEN).reshape(score.shape)
    weight = jnp.exp(score - peak[..., None])
    change = weight * (_product(gradient, wide_value, 3, 3) - mean[..., None])
    of_query = _product(change, wide_key, 3, 2).reshape(rows[0].shape)
    # In this order the small results are transposed, not the scores.
    of_key = jnp.swapaxes(_product(queries, change, 2, 2), 2, 3).reshape(key.shape)
    of_value = jnp.swapaxes(_product(gradient, weight, 2, 2), 2, 3).reshape(value.shape)
    return _to_rows(of_query), of_key.astype(key.dtype), of_value.astype(value.dtype)


def _product(a, b, axis_of_a, axis_of_b):
    """Multiplies two stacks of matrices `[J, K, ., .]` over the axes given.

    As matrices: over more axes than one, XLA's CPU compiler transposes the scores in memory.
    """
    return jax.lax.dot_general(a, b, (((axis_of_a,), (axis_of_b,)), ((0, 1), (0, 1))))


def _scale(query):
    return jnp.asarray(query.shape[-1] ** -0.5, query.dtype)


def _grouped(array, keys):
    """Reshapes `[*lead, T, N, H]` to `[rows, T, K, M, H]`."""
    *lead, length, heads, size = array.shape
    shared = keys[0].shape[-3]
    return array.reshape(math.prod(lead), length, shared, heads // shared, size)


def _flat(array):
    """Reshapes `[*lead, K, S, H]` to `[J, K, S, H]`."""
    return array.reshape(math.prod(array.shape[:-3]), *array.shape[-3:])


def _to_rows(array):
    """Reshapes `[J, K, X, T, M, ...]` to `[rows, K, T, M, ...]`."""
    array = jnp.moveaxis(array, 2, 1)
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def _from_rows(array, groups):
    """Reshapes `[rows, K, T, M, ...]` to `[J, K, X, T, M, ...]`."""
    array = array.reshape(groups, len(array) // groups, *array.shape[1:])
    return jnp.moveaxis(array, 1, 2)


def _reduce(function, arrays):
    result = arrays[0]
    for array in arrays[1:]:
        result = function(result, array)
    return result
