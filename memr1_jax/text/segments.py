"""Lays variable pieces of text one after another in an array of fixed length."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Packed:
    """A prompt made of pieces.

    `tokens [P]` int32, zero after `length`; `length` int32; `dropped` int32, the non-empty pieces
    left out; `overflow` bool, true when the required pieces alone did not fit and the text was cut.
    """

    tokens: jax.Array
    length: jax.Array
    dropped: jax.Array
    overflow: jax.Array


def lay_out(length: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Finds for every place of the output which piece covers it and how far into the piece it is.

    Takes the lengths `[n]` of pieces that follow each other without gaps. Returns `piece
    [capacity]` int32, `offset [capacity]` int32 and the total length, which may exceed the
    capacity; places at or after the total hold values inside the arrays, of no meaning.
    """
    end = jnp.cumsum(length)
    start = end - length
    # An empty piece starts where its successor starts, so the count of starts names the last one.
    starts = jnp.zeros(capacity, jnp.int32).at[start].add(1, mode="drop")
    piece = jnp.maximum(jnp.cumsum(starts) - 1, 0)
    return piece, jnp.arange(capacity, dtype=jnp.int32) - start[piece], end[-1]


def _gather(flat: jax.Array, origin: jax.Array, length: jax.Array, capacity: int):
    """Compacts the runs `flat[origin[i] : origin[i] + length[i]]` into `[capacity]` places."""
    piece, offset, total = lay_out(length, capacity)
    inside = jnp.arange(capacity) < total
    index = jnp.clip(origin[piece] + offset, 0, flat.shape[0] - 1)
    return jnp.where(inside, flat[index], 0), total


def concatenate(pieces: Sequence[tuple[jax.Array, jax.Array]]) -> tuple[jax.Array, jax.Array]:
    """Joins right-padded pieces `(tokens [W_i], length)` without the padding between them.

    Returns tokens `[sum W_i]`, zero after the joint length, and that length.
    """
    flat = jnp.concatenate([tokens for tokens, _ in pieces])
    length = jnp.stack([jnp.asarray(length, jnp.int32) for _, length in pieces])
    widths = jnp.asarray([0] + [tokens.shape[0] for tokens, _ in pieces[:-1]], jnp.int32)
    return _gather(flat, jnp.cumsum(widths), length, flat.shape[0])


def pack(tokens: jax.Array, length: jax.Array, priority: jax.Array, capacity: int) -> Packed:
    """Packs pieces in their order into `capacity` places, leaving out the least relevant ones.

    `tokens [n, W]`, `length [n]`, `priority [n]`, all int32. Priority 0 is required. Any other
    piece is kept, whole, while all pieces of its priority and below fit together; so pieces of
    one priority are kept or dropped as one. If the required pieces alone are too long, their text
    is cut at the capacity.
    """
    length = length.astype(jnp.int32)
    reach = jnp.sum(jnp.where(priority[None, :] <= priority[:, None], length[None, :], 0), axis=1)
    keep = (priority == 0) | (reach <= capacity)
    origin = jnp.arange(tokens.shape[0], dtype=jnp.int32) * tokens.shape[1]
    packed, total = _gather(tokens.reshape(-1), origin, jnp.where(keep, length, 0), capacity)
    return Packed(
        tokens=packed,
        length=jnp.minimum(total, capacity),
        dropped=jnp.sum(~keep & (length > 0), dtype=jnp.int32),
        overflow=total > capacity,
    )
