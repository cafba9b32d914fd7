"""Compares the words of a prediction with those of the gold answer."""

import jax
import jax.numpy as jnp

from memr1_jax.text.normalize import Words


def _equal(prediction: Words, gold: Words) -> jax.Array:
    """Tells which words are the same, `[A, B]` bool; padding equals nothing."""
    same = jnp.all(prediction.hash[:, None, :] == gold.hash[None, :, :], axis=-1)
    return same & _valid(prediction)[:, None] & _valid(gold)[None, :]


def _valid(words: Words) -> jax.Array:
    return jnp.arange(words.hash.shape[-2]) < words.count


@jax.jit
def exact_match(prediction: Words, gold: Words) -> jax.Array:
    """Returns 1.0 if both are the same sequence of words, else 0.0; a float32 scalar.

    If either side is empty the score is 0. A text with more words than its array holds matches
    nothing.
    """
    size = min(prediction.hash.shape[-2], gold.hash.shape[-2])
    same = jnp.all(prediction.hash[:size] == gold.hash[:size], axis=-1)
    agree = jnp.all(same | (jnp.arange(size) >= gold.count))
    usable = (gold.count > 0) & ~prediction.overflow & ~gold.overflow
    return jnp.float32((prediction.count == gold.count) & agree & usable)


@jax.jit
def token_f1(prediction: Words, gold: Words) -> jax.Array:
    """Returns F1 of two multisets of words (SQuAD, arXiv 1606.05250); float32 scalar in [0, 1].

    An empty side scores 0. Words beyond the capacity of an array do not count.
    """
    own = _equal(prediction, prediction)
    rank = jnp.sum(jnp.tril(own, k=-1), axis=1)
    shared = jnp.sum(_equal(prediction, gold), axis=1)
    overlap = jnp.sum(_valid(prediction) & (rank < shared))
    total = prediction.count + gold.count
    return jnp.where(total > 0, 2.0 * overlap / jnp.maximum(total, 1), 0.0).astype(jnp.float32)


@jax.jit
def contains(prediction: Words, gold: Words) -> jax.Array:
    """Returns 1.0 if the prediction holds the gold words in a row, else 0.0; float32 scalar.

    An empty gold, or one with more words than its array holds, is contained in nothing.
    """
    same = _equal(prediction, gold)
    rows, columns = same.shape
    row = jnp.arange(rows)[:, None] + jnp.arange(columns)[None, :]
    diagonal = same[jnp.minimum(row, rows - 1), jnp.arange(columns)] & (row < rows)
    here = jnp.all(diagonal | ~_valid(gold)[None, :], axis=1)
    return jnp.float32(jnp.any(here) & (gold.count > 0) & ~gold.overflow)
