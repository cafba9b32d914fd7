"""Retrieval: the memories of a bank that are most similar to a query."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from memr1_jax.memory.bank import MemoryBank


@flax.struct.dataclass
class Retrieved:
    """Slots of a bank, best first; where `valid` is false, slot is M and score is -inf."""

    slot: Int[Array, "*B Q"]
    score: Float[Array, "*B Q"]
    valid: Bool[Array, "*B Q"]


def retrieve(bank: MemoryBank, query: Float[Array, " E"], k: int) -> Retrieved:
    """Returns the `k` live memories most similar to a query.

    The score is the inner product of embeddings: the cosine, damped for short texts as `embedder`
    tells. Equal scores are ordered by slot, lower first.

    Args:
        bank: a bank of M slots.
        query: an embedding.
        k: static number Q of memories; it may exceed M.
    """
    # On TPUs the default precision is bfloat16, in which near neighbours tie.
    score = jnp.einsum("me,e->m", bank.key, query, precision=jax.lax.Precision.HIGHEST)
    return _best(jnp.where(bank.alive, score, -jnp.inf), k)


def merge_unique(retrieved: Retrieved, capacity: int, limit: int) -> Retrieved:
    """Merges the neighbours of several facts into one list without repeats, best score first.

    Args:
        retrieved: neighbours with leading axes: slot, score and valid [F, k].
        capacity: static number M of slots of the bank that they come from.
        limit: static length of the merged list; worse neighbours are left out.
    """
    score = jnp.where(retrieved.valid, retrieved.score, -jnp.inf)
    best = jnp.full(capacity, -jnp.inf).at[retrieved.slot].max(score, mode="drop")
    return _best(best, limit)


def _best(score: Float[Array, " M"], k: int) -> Retrieved:
    capacity = score.shape[0]
    if k > capacity:
        score = jnp.pad(score, (0, k - capacity), constant_values=-jnp.inf)
    score, slot = jax.lax.top_k(score, k)
    valid = score > -jnp.inf
    return Retrieved(slot=jnp.where(valid, slot, capacity), score=score, valid=valid)
