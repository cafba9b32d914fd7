"""Prefill of prompts in parts, so that the padding behind the longest of them is not computed.

Axis letters: B prompts, P prompt length, T tokens of a part, D model width.
"""

import jax
import jax.numpy as jnp

from memr1_jax.models.bits import as_values
from memr1_jax.models.decoder import (
    Block,
    Context,
    Decoder,
    empty_cache,
    extend_cache,
    last_state,
)

_FEWEST = 64  # tokens of a part; fewer make products thin
_FEWEST_PARTS, _MOST_PARTS = 3, 16  # two save too little for a loop of their own


def prefill(
    decoder: Decoder,
    params: dict,
    blocks: tuple[Block, ...],
    past: tuple[Context, ...] = (),
    active: jax.Array | None = None,
) -> tuple[jax.Array, tuple[Context, ...]]:
    """Computes what `Decoder.prefill` does, up to rounding, for the longest prompt's length alone.

    A loop reads the last block part by part and ends with the longest row. Attention kernels take
    prompts as a whole, so only XLA's own attention has parts.

    Args:
      decoder: the network.
      params: its parameters.
      blocks: a chain, whose last block `[*lead, P]` are the prompts.
      past: blocks above it that were computed before.
      active: `[*lead]`, the prompts that count, by default all; what others give is undefined.

    Returns:
      The last real hidden state `[*lead, D]`, and `past` with all blocks as contexts.
    """
    *above, prompt = blocks
    *lead, width = prompt.tokens.shape
    part = part_length(width)
    variables = {"params": params}
    if not lead or width <= (_FEWEST_PARTS - 1) * part or decoder.kernel != "xla":
        return decoder.apply(variables, blocks, past, method=Decoder.prefill)

    padding = [(0, 0)] * len(lead) + [(0, -width % part)]
    tokens = jnp.pad(prompt.tokens, padding)
    counted = prompt.length if active is None else jnp.where(active, prompt.length, 0)
    parts = -(-counted.max() // part)

    def part_at(start):
        found = jax.lax.dynamic_slice_in_dim(tokens, start, part, axis=-1)
        return Block(found, jnp.clip(prompt.length - start, 0, part))

    def read(carry):
        index, hidden, cache = carry
        start = index * part
        block = part_at(start)
        chain = *past, Context(*cache, jnp.minimum(prompt.length, start))
        found, new = decoder.apply(variables, block, chain, method=Decoder.extend)
        found = last_state(found, block.length)
        hidden = jnp.where((block.length > 0)[..., None], found, hidden)
        return index + 1, hidden, extend_cache(cache, new, start)

    # The first part sees nothing of the others, and most prompts may have no second one.
    blocks = *above, part_at(0)
    hidden, (*past, first) = decoder.apply(variables, blocks, past, method=Decoder.prefill)
    cache = empty_cache(decoder.config, tuple(lead), tokens.shape[-1], decoder.dtype)
    carry = (jnp.int32(1), hidden, extend_cache(cache, first, jnp.int32(0)))
    _, hidden, cache = jax.lax.while_loop(lambda carry: carry[0] < parts, read, carry)
    key, value = (array[..., :width, :] for array in as_values(cache))
    return hidden, (*past, Context(key, value, prompt.length))


def part_length(width: int) -> int:
    """Returns the tokens of a part: a power of two that makes at most sixteen of `width`."""
    part = _FEWEST
    while part * _MOST_PARTS < width:
        part *= 2
    return part
