"""Drafts of the next tokens, copied from an earlier place where the last ones stood.

Both agents copy facts, memories, and the form of their output. A draft needs no model: it is the
token that followed the longest match of the last ones in the prompt or the row's own response.

Axis letters: S tokens of a history, n last tokens that are looked up.
"""

import jax
import jax.numpy as jnp

from memr1_jax.models.decoder import Block

LOOKED_UP = 4  # n; a longer match tells no more


def history_of(blocks: tuple[Block, ...], room: int) -> tuple[jax.Array, jax.Array]:
    """Lays the tokens of a chain one after another, without gaps.

    Returns:
      `[*lead, S]` with `room` places behind the tokens, and the number of tokens `[*lead]`; the
      leading axes are those of the last block.
    """
    lead = blocks[-1].length.shape
    size = sum(block.tokens.shape[-1] for block in blocks) + room
    history, known = jnp.zeros((*lead, size), jnp.int32), jnp.zeros(lead, jnp.int32)
    for block in blocks:
        missing = [1] * (len(lead) - block.length.ndim)
        length = block.length.reshape(*block.length.shape, *missing)
        tokens = block.tokens.reshape(*block.length.shape, *missing, -1)
        tokens = jnp.broadcast_to(tokens, (*lead, tokens.shape[-1]))
        length = jnp.broadcast_to(length, lead)
        history = write_after(history, known, tokens, length)
        known = known + length
    return history, known


def write_after(
    rows: jax.Array, known: jax.Array, values: jax.Array, count: jax.Array
) -> jax.Array:
    """Writes the first `count` `[*lead]` of `values` `[*lead, T]` behind `known` ones of rows."""
    place = jnp.arange(rows.shape[-1]) - known[..., None]
    new = jnp.take_along_axis(values, jnp.clip(place, 0, values.shape[-1] - 1), axis=-1)
    return jnp.where((place >= 0) & (place < count[..., None]), new, rows)


def last_tokens(history: jax.Array, known: jax.Array) -> jax.Array:
    """Returns the last n known tokens `[*lead, n]`, -1 where there are fewer."""
    place = known[..., None] - LOOKED_UP + jnp.arange(LOOKED_UP)
    tokens = jnp.take_along_axis(history, jnp.maximum(place, 0), axis=-1)
    return jnp.where(place < 0, -1, tokens)


def copied(history: jax.Array, known: jax.Array, last: jax.Array) -> jax.Array:
    """Returns the token `[*lead]` that followed the longest match of `last` `[*lead, n]`.

    Of several matches the latest counts; without any the token is arbitrary.
    """
    size = history.shape[-1]
    matches = jnp.ones(history.shape, bool)
    longest = jnp.zeros(history.shape, jnp.int32)
    for back in range(1, LOOKED_UP + 1):
        before = jnp.pad(history, [(0, 0)] * (history.ndim - 1) + [(back, 0)], constant_values=-2)
        matches &= before[..., :size] == last[..., LOOKED_UP - back, None]
        longest += matches
    place = jnp.arange(size)
    score = jnp.where(place < known[..., None], longest * size + place, -1)
    best = jnp.argmax(score, axis=-1)
    return jnp.take_along_axis(history, best[..., None], axis=-1)[..., 0]
