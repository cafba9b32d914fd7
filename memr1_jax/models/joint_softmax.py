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
    queries = _grouped(query, keys) * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
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
    scale = query.shape[-1] ** -0.5
    # In float32, as sums over queries have to be.
    queries, output, gradient = (
        jnp.swapaxes(_grouped(array.astype(jnp.float32), keys), 1, 2)
        for array in (query, output, gradient)
    )  # [rows, K, T, M, H]
    queries, gradient = queries * scale, gradient / total[..., None]
    shift = (gradient * output).sum(axis=-1)
    of_queries, of_keys, of_values = [], [], []
    for key, value, seen in zip(keys, values, visible, strict=True):
        wide_key, wide_value = (_flat(array).astype(jnp.float32) for array in (key, value))
        rows = [_from_rows(x, len(wide_key)) for x in (queries, gradient, peak, shift)]
        own_queries, own_gradient, own_peak, own_shift = rows
        score = jnp.einsum("jkxtmh,jksh->jkxtms", own_queries, wide_key)
        weight = jnp.exp(jnp.where(seen, score, HIDDEN) - own_peak[..., None])
        change = jnp.einsum("jkxtmh,jksh->jkxtms", own_gradient, wide_value)
        change = weight * (change - own_shift[..., None])
        of_queries.append(_to_rows(jnp.einsum("jkxtms,jksh->jkxtmh", change, wide_key)))
        of_key = jnp.einsum("jkxtms,jkxtmh->jksh", change, own_queries)
        of_value = jnp.einsum("jkxtms,jkxtmh->jksh", weight, own_gradient)
        of_keys.append(of_key.reshape(key.shape).astype(key.dtype))
        of_values.append(of_value.reshape(value.shape).astype(value.dtype))
    of_query = jnp.swapaxes(_reduce(jnp.add, of_queries), 1, 2) * scale
    of_query = of_query.reshape(query.shape).astype(query.dtype)
    return of_query, tuple(of_keys), tuple(of_values), (None,) * len(visible)


_mix_by_rule.defvjp(_forward, _backward)


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
