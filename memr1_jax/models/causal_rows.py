"""Attention of prompts as whole causal rows, which kernels for GPUs know.

    [instruction | prompt]

Padding between the two would be neither causal nor at the end, so the real tokens are moved to the
front. Tokens of the blocks above are queries whose results are not used: a small part of a row.
"""

import jax
import jax.numpy as jnp

from memr1_jax.models.attention import Projected, Source


def attend_causally(block: Projected, above: list[Source], implementation: str) -> jax.Array:
    """Attends with a block to itself and to those above in rows; keeps `[*lead, T, N, H]`.

    Exact, gradients included, for real tokens; padding finds anything finite.

    Args:
      block: an instruction, or prompts; its `lead` has at most one axis.
      above: blocks above it, with as many rows or none.
      implementation: of `jax.nn.dot_product_attention`.
    """
    single = block.query.ndim == 3
    rows = 1 if single else block.query.shape[0]
    query = _row(block.query, rows, 3)  # [B, T, N, H]
    keys, values = (
        jnp.concatenate([jnp.swapaxes(_row(array, rows, 3), 1, 2) for array in arrays], axis=1)
        for arrays in (
            [*(source.key for source in above), block.key],
            [*(source.value for source in above), block.value],
        )
    )  # [B, S, K, H]
    before = keys.shape[1] - query.shape[1]
    lengths = [*(source.limit for source in above), block.length]
    sizes = [*(source.key.shape[-2] for source in above), query.shape[1]]
    real = jnp.concatenate(
        [
            jnp.broadcast_to(jnp.arange(size) < jnp.asarray(length)[..., None], (rows, size))
            for length, size in zip(lengths, sizes, strict=True)
        ],
        axis=1,
    )
    query = jnp.pad(query, ((0, 0), (before, 0), (0, 0), (0, 0)))
    order = jnp.argsort(~real, axis=1, stable=True) if above else None
    found = jax.nn.dot_product_attention(
        *(_taken(array, order) for array in (query, keys, values)),
        is_causal=True,
        key_value_seq_lengths=jnp.maximum(real.sum(axis=1), 1).astype(jnp.int32),
        implementation=implementation,
    )
    back = None if order is None else jnp.argsort(order, axis=1)
    return _taken(found, back)[:, before:].reshape(block.query.shape)


def _row(array, rows, ndim):
    """Broadcasts an array of `ndim` axes to `rows` rows; one of more has them already."""
    return jnp.broadcast_to(array, (rows, *array.shape)) if array.ndim == ndim else array


def _taken(array, index):
    """Takes entries of axis 1 of `[B, S, ...]` by `[B, S]`; None keeps their order."""
    return array if index is None else jnp.take_along_axis(array, index[..., None, None], axis=1)
