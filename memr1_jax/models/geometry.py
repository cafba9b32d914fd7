"""Positions of a chain of blocks: their rotations, windows and where each block begins."""

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.models.attention import Source
from memr1_jax.models.families import SLIDING
from memr1_jax.models.rope import rope_tables

_NO_WINDOW = 2**30  # more than all positions


@struct.dataclass
class Geometry:
    """Holds how positions enter attention, for all layers or for those of a kind.

    `ropes` are the rotations of each new block, for all layers with a leading axis of the config's
    kinds; `positions` those of its tokens. `starts` are the positions at which all blocks begin,
    those above first. `window` is None where no layer has one, else of each kind.
    """

    ropes: tuple
    lengths: tuple
    past_lengths: tuple
    positions: tuple
    starts: tuple
    window: jax.Array | None

    def of(self, kind: jax.Array | None) -> "Geometry":
        """Returns the geometry of the kind of layer with this index; None where there is one."""
        pick = jax.tree.map(
            lambda table: table[0 if kind is None else kind], (self.ropes, self.window)
        )
        return self.replace(ropes=pick[0], window=pick[1])

    def within_window(self, sources: list[Source], index: int) -> list[Source]:
        """Hides keys outside the window from the new block `index`, its own and those above it."""
        if self.window is None:
            return sources
        first = self.positions[index] - self.window + 1
        starts = self.starts[: len(sources)]
        return [
            source._replace(first=first - _extend(start, first.ndim))
            for source, start in zip(sources, starts, strict=True)
        ]


def kind_of_layer(config):
    """Returns the index of each layer's kind among the config's `[L]`, or None if all are alike."""
    if len(config.kinds) == 1:
        return None
    return jnp.asarray([config.kinds.index(kind) for kind in config.layer_kinds], jnp.int32)


def make_geometry(config, blocks, past, offset=0):
    """Computes rotations and windows of positions counted from the lengths of all blocks above."""
    ropes, positions, starts, above = [], [], [], []
    for context in past:
        starts.append(_start(above, context.length.ndim))
        above.append(context.length)
    for block in blocks:
        start = _start(above, block.length.ndim)
        place = jnp.asarray(start + offset)[..., None] + jnp.arange(block.tokens.shape[-1])
        positions.append(jnp.broadcast_to(place, block.tokens.shape))
        tables = [rope_tables(config, positions[-1], kind) for kind in config.kinds]
        ropes.append(jax.tree.map(lambda *kinds: jnp.stack(kinds), *tables))
        starts.append(start)
        above.append(block.length)
    windows = [config.window if kind == SLIDING else _NO_WINDOW for kind in config.kinds]
    return Geometry(
        tuple(ropes),
        tuple(block.length for block in blocks),
        tuple(context.length for context in past),
        tuple(positions),
        tuple(starts),
        jnp.asarray(windows) if SLIDING in config.kinds else None,
    )


def _start(above, ndim):
    """Returns the position below all blocks with the lengths `above`, for `ndim` leading axes."""
    return jnp.asarray(sum(_extend(length, ndim) for length in above), jnp.int32)


def _extend(length, ndim):
    """Appends axes of size one, so that `[B]` broadcasts against `[B, G]`."""
    return length.reshape(*length.shape, *([1] * (ndim - length.ndim)))
