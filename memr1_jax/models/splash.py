"""Attention of a whole block chain in one call of JAX's splash attention, a TPU kernel.

A prompt, its group's responses and the blocks above them become one row:

    keys       [instruction | prompt | response 1 | ... | response G]
    queries                  [prompt | response 1 | ... | response G]

Tokens see everything before their place in the row, but a response sees no other response. This
mask depends on shapes alone; padding is hidden by segment ids. The kernel never holds the scores,
skips what the mask hides, and its gradients are exact.

Axis letters: B prompts, T and S lengths of queries and keys, N query heads, K key/value heads, H
head size, J leading rows of a block.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.models.attention import Projected, Source
from memr1_jax.parallel.activations import on_devices, splits
from memr1_jax.parallel.rules import BATCH, HEADS

INTERPRET = False  # True computes the kernel's arithmetic without a TPU, slowly: for tests
LANES = 128  # of a TPU's registers: a block's length is rounded up to it
_TILES = (512, 256, LANES)  # queries and keys of a tile
_INDEX_BITS = 17  # of a place in a row; those above hold where a response begins, in lanes


def fits(blocks: list[Projected], above: list[Source]) -> bool:
    """Tells whether the kernel takes these blocks in one row.

    Those before the last are shared by it, row by row. The head size is a multiple of 64, a row has
    between 128 and 131,000 tokens, and a mesh that splits query heads splits key heads as well.
    """
    *shared, last = blocks
    rows = last.query.shape[0]
    lengths = [block.query.shape[-3] for block in shared]
    lengths.append(math.prod(last.query.shape[1:-2]))
    keys = sum(_rounded(block.key.shape[-2]) for block in [*above, *shared])
    keys += math.prod(last.query.shape[1:-3]) * _rounded(last.query.shape[-3])
    return (
        last.query.shape[-1] % 64 == 0
        and all(block.query.shape[:-3] == (rows,) for block in shared)
        and all(source.key.shape[:-3] in ((), (rows,)) for source in above)
        and splits(last.query, heads=-2) == splits(last.key, heads=-3)
        and sum(lengths) >= LANES
        and keys + _TILES[0] < 2**_INDEX_BITS
    )


def attend_row(blocks: list[Projected], above: list[Source]) -> list[jax.Array]:
    """Attends with all blocks of a chain to one another and to the blocks `above` them.

    Exact, gradients included. See `fits` for what is possible; on a mesh, rows lie over data and
    fsdp and heads over tensor, where these divide them.

    Returns:
      What each block's queries found, in their shape `[*lead, T, N, H]`.
    """
    rows, size = blocks[-1].query.shape[0], blocks[-1].query.shape[-1]
    query = [_flat(block.query * jnp.asarray(size**-0.5, block.query.dtype)) for block in blocks]
    query = [jnp.moveaxis(_padded(array, -3), -2, 1) for array in query]  # [B, N, J, T, H]
    keys = [*above, *blocks]
    layout = Layout(
        sum(_rounded(source.key.shape[-2]) for source in above),
        tuple(array.shape[2:4] for array in query),
    )
    query = _joined(query, layout.queries)
    key, value = (
        _joined([_key_rows(array, rows) for array in arrays], layout.keys)
        for arrays in ([block.key for block in keys], [block.value for block in keys])
    )
    real = _real_keys(above, blocks, rows)
    real = jnp.pad(real, ((0, 0), (0, layout.keys - real.shape[1])))
    attended = on_devices(
        functools.partial(_kernel_on_rows, layout),
        (query, key, value, real),
        ((BATCH, HEADS, None, None),) * 3 + ((BATCH, None),),
        (BATCH, HEADS, None, None),
    )
    return _parted(attended, blocks, layout)


class Layout:
    """Lays the blocks of a chain in a row; equal layouts share a kernel."""

    def __init__(self, above: int, blocks: tuple[tuple[int, int], ...]):
        """Takes the keys `above` the queries, and each block's sequences and their length."""
        self.above, self.blocks = above, blocks
        length = sum(count * size for count, size in blocks)
        self.tile = max(tile for tile in _TILES if tile <= _rounded(length) or tile == LANES)
        self.queries = _rounded(length, self.tile)
        self.keys = _rounded(above + length, self.tile)

    def __eq__(self, other):
        """Compares what the layout was made from."""
        return (self.above, self.blocks) == (other.above, other.blocks)

    def __hash__(self):
        """Hashes the same."""
        return hash((self.above, self.blocks))

    @property
    def shared(self) -> int:
        """Counts the keys that all sequences of the last block see."""
        return self.above + sum(count * size for count, size in self.blocks[:-1])

    def places(self) -> np.ndarray:
        """Returns for each query `[T]` its own place in the row and where its sequence begins."""
        count, size = self.blocks[-1]
        own = self.above + np.arange(self.queries)
        first = self.shared + (own - self.shared) // size * size
        inside = (own >= self.shared) & (own < self.shared + count * size)
        return (own + (np.where(inside, first, 0) // LANES << _INDEX_BITS)).astype(np.int32)

    def visible(self, place, key):
        """Tells whether the query at `place` sees the `key` of an index; NumPy or JAX arrays."""
        own, first = place & (2**_INDEX_BITS - 1), (place >> _INDEX_BITS) * LANES
        return (key <= own) & ((key >= first) | (key < self.shared))


@functools.lru_cache(maxsize=64)
def _kernel(layout: Layout, interpret: bool):
    """Makes the kernel of a layout; its tables are NumPy arrays, which any program may hold."""
    from jax.experimental.pallas.ops.tpu import splash_attention
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    class ChainMask(masks._ComputableMask):
        """Computes the mask inside the kernel: as an array it would be the square of the row."""

        def __init__(self):
            super().__init__((layout.queries, layout.keys), layout.visible)
            self.q_sequence = layout.places()

        def __eq__(self, other):
            return self is other

        def __hash__(self):
            return id(self)

    tile = layout.tile
    sizes = splash_attention.BlockSizes(
        **{name: tile for name in ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv")},
        **{name: tile for name in ("block_q_dq", "block_kv_dq")},
    )
    with jax.ensure_compile_time_eval():
        kernel = splash_attention.make_splash_mha(
            masks.MultiHeadMask([ChainMask()]),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
    return jax.tree.map(np.asarray, kernel)


def _kernel_on_rows(layout, query, key, value, real):
    """Runs the kernel on the rows of one device."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    kernel = _kernel(layout, INTERPRET)
    every = jnp.ones(query.shape[2], jnp.int32)

    def row(query, key, value, real):
        return kernel(query, key, value, splash_attention.SegmentIds(every, real))

    return jax.vmap(row)(query, key, value, real)


def _real_keys(above, blocks, rows):
    """Marks `[B, S]` the keys of a row that are no padding.

    A last block's own padding is behind all its tokens and needs no mark, but that of rounding.
    """
    marks = [_marks(source.limit, source.key.shape[-2], rows) for source in above]
    marks += [_marks(block.length, block.key.shape[-2], rows) for block in blocks[:-1]]
    last = blocks[-1]
    count, size = math.prod(last.query.shape[1:-3]), last.key.shape[-2]
    marks.append(jnp.tile(_marks(jnp.int32(size), size, rows), (1, count)))
    return jnp.concatenate(marks, axis=1)


def _marks(length, size, rows):
    marks = jnp.arange(_rounded(size)) < jnp.asarray(length)[..., None]
    return jnp.broadcast_to(marks, (rows, _rounded(size))).astype(jnp.int32)


def _key_rows(array, rows):
    """Reshapes `[K, S, H]`, `[B, K, S, H]` or `[B, G, K, S, H]` to `[B, K, J, S, H]`."""
    array = _padded(array, -2)
    if array.ndim == 3:
        array = jnp.broadcast_to(array, (rows, *array.shape))
    return jnp.swapaxes(_flat(array), 1, 2)


def _flat(array):
    """Reshapes `[B, ..., X, Y, H]` to `[B, J, X, Y, H]`."""
    return array.reshape(array.shape[0], math.prod(array.shape[1:-3]), *array.shape[-3:])


def _joined(arrays, length):
    """Lays arrays `[B, heads, J, S, H]` one after another: `[B, heads, length, H]`."""
    flat = [array.reshape(*array.shape[:2], -1, array.shape[-1]) for array in arrays]
    flat = jnp.concatenate(flat, axis=2)
    return jnp.pad(flat, ((0, 0), (0, 0), (0, length - flat.shape[2]), (0, 0)))


def _parted(attended, blocks, layout):
    """Cuts `[B, N, T, H]` into the blocks, in the shapes of their queries."""
    outputs, start = [], 0
    for block, (count, size) in zip(blocks, layout.blocks, strict=True):
        part = attended[:, :, start : start + count * size]
        part = part.reshape(*part.shape[:2], count, size, part.shape[-1])
        part = jnp.moveaxis(part[:, :, :, : block.query.shape[-3]], 1, -2)
        outputs.append(part.reshape(block.query.shape))
        start += count * size
    return outputs


def _padded(array, axis):
    """Pads an axis to a whole number of registers."""
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, _rounded(array.shape[axis]) - array.shape[axis])
    return jnp.pad(array, padding)


def _rounded(length, multiple=LANES):
    return -(-length // multiple) * multiple
