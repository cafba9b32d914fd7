"""Reads an extractor's output on the device: each line that begins with a dash is a fact.

Axis letters: R response length, C bytes, F facts, W tokens of a fact.
"""

import jax
import jax.numpy as jnp

from memr1_jax.text.byte_table import ByteTable, tokens_to_bytes
from memr1_jax.text.json_scanner import raw_characters, texts_as_tokens
from memr1_jax.text.reasoning import one_of
from memr1_jax.text.white_space import latest

_BLANK = " \t\r\x0b\x0c\n"


def scan_facts(
    table: ByteTable,
    tokens: jax.Array,
    length: jax.Array,
    *,
    facts: int,
    width: int,
    capacity: int,
) -> tuple[jax.Array, jax.Array]:
    """Reads the first `facts` facts of a response, the first `length` of `tokens` `[R]`.

    The lines are those of `agents.extractor.read_facts`. Texts keep the space after the dash, the
    form that memories have, and are cut at `width` tokens.

    Returns:
      Tokens `[F, W]` and lengths `[F]`, 0 for none.
    """
    text = tokens_to_bytes(table, tokens, length, capacity)
    place = jnp.arange(capacity, dtype=jnp.int32)
    valid = place < text.length
    newline = valid & (text.bytes == ord("\n"))
    solid = valid & ~one_of(text.bytes, _BLANK)
    line = latest(newline)  # where the line before ends
    before = jnp.concatenate([jnp.full(1, -1, jnp.int32), latest(solid)[:-1]])

    def following(where):
        """Returns the next place after each place where it holds, C for none."""
        later = jnp.append(jnp.where(where, place, capacity), capacity)
        return jax.lax.cummin(later, reverse=True)[1:]

    spaced = jnp.append(valid[1:] & (text.bytes[1:] == ord(" ")), False)
    dash = solid & (before <= line) & (text.bytes == ord("-")) & spaced
    dash &= following(solid) < following(newline)
    mark, owner = latest(dash), jnp.cumsum(dash) - 1
    inside = valid & ~newline & (mark > line) & (place > mark) & (owner < facts)
    owner = jnp.clip(owner, 0, facts - 1)
    written, kept, _, _ = texts_as_tokens(
        table, tokens, text, raw_characters(text), owner, inside, facts, width
    )
    return written, kept
