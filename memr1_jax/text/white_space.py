"""Folding of white space on the device, as `plain.one_line` folds it on the host.

Axis letters: C bytes.
"""

import jax
import jax.numpy as jnp

# All code points c with chr(c).isspace(): inclusive ranges.
_SPACES = (
    (0x09, 0x0D),
    (0x1C, 0x20),
    (0x85, 0x85),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
)


def is_space(code: jax.Array) -> jax.Array:
    """Tells which code points are white space, as `str.isspace` does."""
    found = jnp.zeros(code.shape, bool)
    for first, last in _SPACES:
        found |= (code >= first) & (code <= last)
    return found


def is_line_break(code: jax.Array) -> jax.Array:
    """Tells which code points end a line for any program, as `str.splitlines` has it."""
    breaks = (*range(0x0A, 0x0E), 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029)
    return jnp.isin(code, jnp.asarray(breaks, code.dtype))


def latest(where: jax.Array) -> jax.Array:
    """Finds the latest place at or before each place where `where [C]` holds, else -1."""
    place = jnp.arange(where.shape[0], dtype=jnp.int32)
    return jax.lax.cummax(jnp.where(where, place, -1))


def folded_spaces(
    code: jax.Array, begins: jax.Array, inside: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Finds the white space of texts, and the places that stay as one space each.

    A run keeps its first character. Nothing stays at the end of a text, and at its beginning what
    is there already: texts of memories have one space in front.

    Args:
      code: `[C]`, the code point that begins at each place.
      begins: `[C]`, where a character begins.
      inside: `[C]`, the places of texts; between two texts there is at least one other.

    Returns:
      `space [C]`, the places of characters that are white space, and `kept [C]` of them.
    """
    character = begins & inside
    space = character & is_space(code)
    solid = character & ~space
    before = jnp.concatenate([jnp.full(1, -1, jnp.int32), latest(character)[:-1]])
    opening = latest(~inside)
    follows_space = (before > opening) & space[before]
    # Places are counted from the end, so that the next ones come first.
    to_solid, to_end = latest(solid[::-1])[::-1], latest(~inside[::-1])[::-1]
    return space, space & ~follows_space & (to_solid > to_end)
