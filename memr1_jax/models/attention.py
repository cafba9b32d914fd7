"""Attention of one block of queries to several blocks of keys under one joint softmax.

Axis letters: T query length, S key length, N query heads, K key/value heads, M = N / K query heads
a key head, H head size. Leading axes of a query block extend those of every block above it:

    instruction []  ->  prompt [B]  ->  response [B, G]

so the keys of an instruction or a prompt are stored and read once for everything below. For a
source with `J` leading rows and a query with `J * X` rows, the `X` rows that share the keys are
folded into the query axis of one matrix product: nothing is repeated.

Where the scores of all queries would take too much memory, the queries are processed in parts, one
after another, whose scores are computed again in the backward pass. On a CPU, queries of a long
block come in a few steps before that, none of which scores the keys behind its last query.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from memr1_jax.models.bits import on_one_cpu
from memr1_jax.models.joint_softmax import mix
from memr1_jax.parallel.activations import split, splits

# Float32 scores that a device computes at once. The backward pass holds a few arrays of this size;
# by libtpu's own estimate fewer are slower, and more no faster.
SCORE_BYTES = 256 * 2**20
_FEWEST = 8  # queries of a part: rows of a TPU's registers
_STEP, _MOST_STEPS = 128, 4  # of a long block on a CPU: queries of a step, at least, and steps


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


def attend(
    query: jax.Array, sources: list[Source], score_bytes: int = SCORE_BYTES, step: int = _STEP
) -> jax.Array:
    """Attends to the keys of all sources under one softmax; keeps the shape `[*lead, T, N, H]`.

    Exact, gradients included: the pieces share one maximum and one sum. Scores and the sum are
    float32. Every query must see at least one key, which its own block guarantees.

    Args:
      query: the queries.
      sources: keys and values of the blocks above and of their own, which comes last.
      score_bytes: scores of more bytes than this on a device are computed in parts.
      step: on a CPU, a block of at least twice as many queries is attended in steps of as many or
        more, and each scores the keys up to its own end alone.
    """
    length = query.shape[-3]
    steps = min(length // step, _MOST_STEPS) if on_one_cpu() else 1
    if steps < 2:
        return _attend_in_parts(query, sources, score_bytes)
    step = -(-length // steps)
    wide, found = _widened(sources), []
    for start in range(0, length, step):
        stop = min(start + step, length)
        seen = [
            _cut(_narrowed(source, given), start, stop)
            for source, given in zip(wide, sources, strict=True)
        ]
        found.append(_attend_in_parts(query[..., start:stop, :, :], seen, score_bytes))
    return jnp.concatenate(found, axis=-3)


def _cut(source, start, stop):
    """Returns the keys that queries from `start` to `stop` may see."""
    if source.first is not None:
        source = source._replace(first=source.first[..., start:stop])
    if not source.causal:
        return source
    return source._replace(
        key=source.key[..., :stop, :],
        value=source.value[..., :stop, :],
        limit=source.limit[start:stop],
    )


def _attend_in_parts(query, sources, score_bytes):
    length = query.shape[-3]
    part = _part_length(query, sources, score_bytes)
    if part >= length:
        return _attend(query, sources)
    wide = _widened(sources)

    def attend_part(inputs):
        query, limits, firsts = inputs
        limits, firsts = iter(limits), iter(firsts)
        narrow = [
            _narrowed(source, given)._replace(
                limit=next(limits) if source.causal else source.limit,
                first=None if source.first is None else next(firsts),
            )
            for source, given in zip(wide, sources, strict=True)
        ]
        return _attend(query, narrow)

    if not on_one_cpu():  # there `mix` keeps no scores
        attend_part = jax.checkpoint(attend_part)
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
    keys = tuple(source.key for source in sources)
    values = tuple(source.value for source in sources)
    return mix(query, keys, values, tuple(_visible(query, source) for source in sources))


def _visible(query, source):
    """Tells which keys queries see; broadcasts to `[J, K, X, T, M, S]`."""
    groups = math.prod(source.key.shape[:-3])
    rows, length = math.prod(query.shape[:-3]), query.shape[-3]
    position = jnp.arange(source.key.shape[-2])
    if source.causal:
        visible = position < source.limit[:, None, None]  # [T, 1, S]
    else:
        visible = position < source.limit.reshape(groups, 1, 1, 1, 1, 1)
    if source.first is not None:
        first = source.first.reshape(groups, 1, rows // groups, length, 1, 1)
        visible &= position >= first
    return visible


def _widened(sources):
    """Takes keys to float32: their gradients add up over parts, as inside one product."""
    return [
        source._replace(key=source.key.astype(jnp.float32), value=source.value.astype(jnp.float32))
        for source in sources
    ]


def _narrowed(source, given):
    return source._replace(
        key=source.key.astype(given.key.dtype), value=source.value.astype(given.value.dtype)
    )


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


def _rows(query):
    """Returns the axis of prompts in `[*lead, T, N, H]`; an instruction has none."""
    return 0 if query.ndim > 3 else None
