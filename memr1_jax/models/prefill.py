"""Prefill of prompts in parts, so that the padding behind the longest of them is not computed.

Axis letters: B prompts, P prompt length, T tokens of a part, D model width.
"""

import jax
import jax.numpy as jnp

from memr1_jax.models.bits import as_values
from memr1_jax.models.decoder import Block, Context, Decoder, empty_cache, write_cache

_FEWEST = 64  # tokens of a part; fewer make products thin
_MOST_PARTS = 16


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
    if not lead or part >= width or decoder.kernel != "xla":
        return decoder.apply(variables, blocks, past, method=Decoder.prefill)
    if above:
        _, past = decoder.apply(variables, tuple(above), past, method=Decoder.prefill)

    padding = [(0, 0)] * len(lead) + [(0, -width % part)]
    tokens = jnp.pad(prompt.tokens, padding)
    counted = prompt.length if active is None else jnp.where(active, prompt.length, 0)
    parts = -(-counted.max() // part)
    last = jnp.maximum(prompt.length - 1, 0)

    def read(carry):
        index, hidden, cache = carry
        start = index * part
        block = Block(
            jax.lax.dynamic_slice_in_dim(tokens, start, part, axis=-1),
            jnp.clip(prompt.length - start, 0, part),
        )
        before = Context(*cache, jnp.minimum(prompt.length, start))
        found, new = decoder.apply(variables, block, (*past, before), method=Decoder.extend)
        place = jnp.clip(last - start, 0, part - 1)[..., None, None]
        found = jnp.take_along_axis(found, place, axis=-2)[..., 0, :]
        hidden = jnp.where((last // part == index)[..., None], found, hidden)
        return index + 1, hidden, write_cache(cache, new, start)

    hidden = jnp.zeros((*lead, decoder.config.model_width), decoder.dtype)
    cache = empty_cache(decoder.config, tuple(lead), tokens.shape[-1], decoder.dtype)
    carry = (jnp.int32(0), hidden, cache)
    _, hidden, cache = jax.lax.while_loop(lambda carry: carry[0] < parts, read, carry)
    key, value = (array[..., :width, :] for array in as_values(cache))
    return hidden, (*past, Context(key, value, prompt.length))


def part_length(width: int) -> int:
    """Returns the tokens of a part: a power of two that makes at most sixteen of `width`."""
    part = _FEWEST
    while part * _MOST_PARTS < width:
        part *= 2
    return part
