"""Shares work among equal prompts: each distinct one is computed once.

Axis letters: N rows, P prompt length.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from memr1_jax.models.decoder import Block
from memr1_jax.parallel.activations import split

_PARTS = 8  # fewer leave more rows empty, more take longer to start
_ROWS = 8  # a part's rows are a multiple of this, so that they spread over devices and registers


@struct.dataclass
class Distinct:
    """Tells which rows have equal prompts.

    `first` `[N]` holds the row of each distinct prompt, `count` of them, and then anything;
    `number` `[N]` says which distinct prompt a row has, and is N for rows that are left out.
    """

    first: jax.Array
    number: jax.Array
    count: jax.Array

    @property
    def leads(self) -> jax.Array:
        """Marks the rows `[N]` that stand for their prompt."""
        rows = jnp.arange(len(self.number))
        return self.first[jnp.minimum(self.number, len(rows) - 1)] == rows


def find_distinct(prompt: Any, active: jax.Array) -> Distinct:
    """Finds the distinct prompts of the rows that are `active` `[N]`.

    A prompt is a block `[N, P]`, or a tree of blocks that must all be equal. Rows are sorted by a
    digest and compared with their neighbours, token by token. So two prompts of one digest are
    never taken for equal; they may only be counted twice.
    """
    blocks = jax.tree.leaves(prompt, is_leaf=lambda x: isinstance(x, Block))
    tokens = jnp.concatenate([_without_padding(block) for block in blocks], axis=-1)
    count, width = tokens.shape
    factors = np.random.default_rng(0).integers(0, 2**32, width, np.uint32) | np.uint32(1)
    digest = (tokens.astype(jnp.uint32) * factors).sum(-1, dtype=jnp.uint32)
    order = jnp.lexsort((digest, ~active))
    tokens, active = tokens[order], active[order]
    same = (tokens[1:] == tokens[:-1]).all(-1)
    new = active & jnp.concatenate([jnp.ones(1, bool), ~same])
    place = jnp.cumsum(new) - 1
    return Distinct(
        first=jnp.zeros(count, jnp.int32).at[jnp.where(new, place, count)].set(order, mode="drop"),
        number=jnp.zeros(count, jnp.int32).at[order].set(jnp.where(active, place, count)),
        count=new.sum(),
    )


def _without_padding(block: Block) -> jax.Array:
    """Returns the tokens `[N, P]` with -1 in place of padding."""
    inside = jnp.arange(block.tokens.shape[-1]) < block.length[:, None]
    return jnp.where(inside, block.tokens, -1)


def once_each(
    function: Callable[[Any, jax.Array], Any],
    prompt: Any,
    active: jax.Array,
    empty: Any,
    size: int = 0,
) -> tuple[Any, jax.Array]:
    """Computes a function of prompts once for each distinct one, and hands all rows their result.

    As many parts run one after another as the distinct prompts fill, and only one of them takes
    memory. Not differentiable.

    Args:
      function: maps prompts `[size, P]`, and which of them count, to leaves `[size, ...]`; a
        prompt's result must not depend on the others.
      prompt: a block `[N, P]`, or a tree of blocks.
      active: `[N]`, which rows need a result.
      empty: one row of the result of the others.
      size: distinct prompts of a part; 0 for about an eighth of the rows.

    Returns:
      Leaves `[N, ...]`, and a mark `[N]` for one row of each distinct prompt.
    """
    count = len(active)
    size = min(size or -(-count // (_PARTS * _ROWS)) * _ROWS, count)
    found = find_distinct(prompt, active)
    rows = -(-count // size) * size
    first = jnp.pad(found.first, (0, rows - count))
    results = jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *jnp.shape(x))), empty)

    def unfinished(carry):
        return carry[0] < found.count

    def compute(carry):
        start, results = carry
        chosen = jax.lax.dynamic_slice_in_dim(first, start, size)
        part = jax.tree.map(lambda x: split(x[chosen]), prompt)
        new = function(part, start + jnp.arange(size) < found.count)
        results = jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, start, axis=0), results, new
        )
        return start + size, results

    _, results = jax.lax.while_loop(unfinished, compute, (jnp.int32(0), results))
    place = jnp.minimum(found.number, count - 1)

    def hand_out(result, missing):
        on = active.reshape(-1, *[1] * (result.ndim - 1))
        return jnp.where(on, result[place], missing)

    return jax.tree.map(hand_out, results, empty), active & found.leads
