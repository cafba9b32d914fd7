"""Attention of one block of queries to several blocks of keys under one joint softmax.

Axis letters: T query length, S key length, N query heads, K key/value heads, M = N / K query heads
a key head, H head size. Leading axes of a query block extend those of every block above it:

    instruction []  ->  prompt [B]  ->  response [B, G]

so the keys of an instruction or a prompt are stored and read once for everything below. For a
source with `J` leading rows and a query with `J * X` rows, the `X` rows that share the keys are
folded into the query axis of one matrix product: nothing is repeated.

Where the scores of all queries would take too much memory, the queries are processed in parts, one
after another, whose scores are computed again in the backward pass.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from memr1_jax.parallel.activations import split, splits

_HIDDEN = -1e30  # score of a key that is not visible
# Float32 scores that a device computes at once. The backward pass holds a few arrays of this size;
# by libtpu's own estimate fewer are slower, and more no faster.
SCORE_BYTES = 256 * 2**20
_FEWEST = 8  # queries of a part: rows of a TPU's registers


class Source(NamedTuple):
    """Keys and values of one block, each `[*lead, K, S, H]`, and how many are visible.

    Keys at indices below `limit` are seen: `[*lead]` for a block above the queries (its length),
    `[T]` for the queries' own block (causal: index + 1). Where attention has a window, so are only
    those from `first` on, `[*lead, T]` of the queries.
    """

    key: jax.Array
    value: jax.Array
    limit: jax.Array
    causal: bool
    first: jax.Array | None = None


class Projected(NamedTuple):
    """A block whose tokens are queries and keys at once.

    `query` `[*lead, T, N, H]`; `key` and `value` `[*lead, K, T, H]`; `length` `[*lead]`.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    length: jax.Array

    @property
    def own(self) -> Source:
        """Its keys as its own tokens see them."""
        return Source(self.key, self.value, jnp.arange(self.key.shape[-2]) + 1, causal=True)

    @property
    def above(self) -> Source:
        """Its keys as the blocks below see them."""
        return Source(self.key, self.value, self.length, causal=False)


def attend(query: jax.Array, sources: list[Source], score_bytes: int = SCORE_BYTES) -> jax.Array:
    """Attends to the keys of all sources under one softmax; keeps the shape `[*lead, T, N, H]`.

    Exact, gradients included: the pieces share one maximum and one sum. Scores and the sum are
    float32. Every query must see at least one key, which its own block guarantees.

    Args:
      query: the queries.
      sources: keys and values of the blocks above and of their own.
      score_bytes: scores of more bytes than this on a device are computed in parts.
    """
    length = query.shape[-3]
    part = _part_length(query, sources, score_bytes)
    if part >= length:
        return _attend(query, sources)

    # Gradients of keys and values add up over the parts: in float32, as inside one product.
    wide = [source._replace(key=_wide(source.key), value=_wide(source.value)) for source in sources]

    @jax.checkpoint
    def attend_part(inputs):
        query, limits, firsts = inputs
        limits, firsts = iter(limits), iter(firsts)
        narrow = [
            source._replace(
                key=source.key.astype(given.key.dtype),
                value=source.value.astype(given.value.dtype),
                limit=next(limits) if source.causal else source.limit,
                first=None if source.first is None else next(firsts),
            )
            for source, given in zip(wide, sources, strict=True)
        ]
        return _attend(query, narrow)

    limits = [_parts(source.limit, 0, part) for source in sources if source.causal]
    firsts = [source.first for source in sources if source.first is not None]
    firsts = [_parts(first, first.ndim - 1, part) for first in firsts]
    queries = split(
        _parts(query, query.ndim - 3, part), rows=1 if query.ndim > 3 else None, heads=-2
    )
    output = jax.lax.map(attend_part, (queries, limits, firsts))  # [parts, *lead, part, N, H]
    output = jnp.moveaxis(output, 0, -4)
    output = output.reshape(*query.shape[:-3], -1, *query.shape[-2:])
    return output[..., :length, :, :]


def _attend(query, sources):
    *lead, length, num_heads, head_size = query.shape
    rows = math.prod(lead)
    num_kv_heads = sources[0].key.shape[-3]
    shared = num_heads // num_kv_heads
    query = query.reshape(rows, length, num_kv_heads, shared, head_size)
    query = query * jnp.asarray(head_size**-0.5, query.dtype)

    scores = [_scores(query, source) for source in sources]  # each [J, K, X, T, M, S]
    # A block may be empty: its maximum is the score of a hidden key.
    peak = [_to_rows(score.max(axis=-1, initial=_HIDDEN)) for score in scores]  # [rows, K, T, M]
    peak = jax.lax.stop_gradient(_reduce(jnp.maximum, peak))

    total, mixed = [], []
    for score, source in zip(scores, sources, strict=True):
        weight = jnp.exp(score - _from_rows(peak, score.shape[0])[..., None])
        total.append(_to_rows(weight.sum(axis=-1)))
        value = _flat(source.value)  # [J, K, S, H]
        part = jnp.einsum(
            "jkxtms,jksh->jkxtmh",
            weight.astype(value.dtype),
            value,
            preferred_element_type=jnp.float32,
        )
        mixed.append(_to_rows(part))
    output = _reduce(jnp.add, mixed) / _reduce(jnp.add, total)[..., None]  # [rows, K, T, M, H]
    output = output.transpose(0, 2, 1, 3, 4).astype(query.dtype)
    return output.reshape(*lead, length, num_heads, head_size)


def _part_length(query, sources, score_bytes):
    """Returns how many queries are scored at once: all, or a power of two for little rest."""
    length = query.shape[-3]
    keys = sum(source.key.shape[-2] for source in sources)
    bytes_each = 4 * math.prod(query.shape[:-3]) * query.shape[-2] * keys
    devices = splits(query, rows=_rows(query), heads=-2)
    most = devices * score_bytes // max(bytes_each, 1)  # an empty block has no scores
    return length if most >= length else max(2 ** int(math.log2(max(most, 1))), _FEWEST)


def _parts(array, axis, part):
    """Cuts `axis` into parts of `part` entries and moves them to the front; repeats the last."""
    count = -(-array.shape[axis] // part)
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, count * part - array.shape[axis])
    array = jnp.pad(array, padding, mode="edge")
    shape = (*array.shape[:axis], count, part, *array.shape[axis + 1 :])
    return jnp.moveaxis(array.reshape(shape), axis, 0)


def _wide(array):
    return array.astype(jnp.float32)


def _rows(query):
    """Returns the axis of prompts in `[*lead, T, N, H]`; an instruction has none."""
    return 0 if query.ndim > 3 else None


def _scores(query, source):
    key = _flat(source.key)  # [J, K, S, H]
    groups = key.shape[0]
    query = query.reshape(groups, len(query) // groups, *query.shape[1:])  # [J, X, T, K, M, H]
    score = jnp.einsum("jxtkmh,jksh->jkxtms", query, key, preferred_element_type=jnp.float32)
    position = jnp.arange(key.shape[2])
    if source.causal:
        visible = position < source.limit[:, None, None]  # [T, 1, S]
    else:
        visible = position < source.limit.reshape(groups, 1, 1, 1, 1, 1)
    if source.first is not None:
        first = source.first.reshape(groups, 1, *query.shape[1:3], 1, 1)  # [J, 1, X, T, 1, 1]
        visible &= position >= first
    return jnp.where(visible, score, _HIDDEN)


def _flat(array):
    """Reshapes `[*lead, K, S, H]` to `[J, K, S, H]`."""
    return array.reshape(math.prod(array.shape[:-3]), *array.shape[-3:])


def _to_rows(array):
    """Reshapes `[J, K, X, T, M, ...]` to `[rows, K, T, M, ...]`."""
    array = jnp.moveaxis(array, 2, 1)
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def _from_rows(array, groups):
    """Reshapes `[rows, K, T, M]` to `[J, K, X, T, M]`."""
    array = array.reshape(groups, len(array) // groups, *array.shape[1:])
    return jnp.moveaxis(array, 1, 2)


def _reduce(function, arrays):
    result = arrays[0]
    for array in arrays[1:]:
        result = function(result, array)
    return result
