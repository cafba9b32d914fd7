"""Finds the memories nearest to texts, with their scores."""

from collections.abc import Sequence

import numpy as np

from memr1_jax.bench.systems.text_bank import Bank, Embed, top


def nearest(bank: Bank, query: str, k: int, embed: Embed) -> list[tuple[int, float]]:
    """Returns ids and scores of the `k` memories most similar to a text, best first."""
    if not bank.items or k <= 0:
        return []
    ids = list(bank.items)
    scores = embed([query])[0] @ np.stack([bank.keys[i] for i in ids]).T
    return [(ids[place], float(scores[place])) for place in top(scores, k)]


def nearest_to_any(bank: Bank, texts: Sequence[str], k: int, limit: int, embed: Embed) -> list[int]:
    """Returns ids of the `k` nearest memories of every text, each once, best first.

    The score of a memory is its best; there are at most `limit`.
    """
    if not bank.items or not texts:
        return []
    ids = list(bank.items)
    scores = embed(texts) @ np.stack([bank.keys[i] for i in ids]).T
    best: dict[int, float] = {}
    for row in scores:
        for place in top(row, k):
            best[place] = max(best.get(place, -np.inf), float(row[place]))
    order = sorted(best, key=lambda place: (-best[place], ids[place]))
    return [ids[place] for place in order[:limit]]


def fused(bank: Bank, query: str, words: np.ndarray, k: int, embed: Embed) -> list[int]:
    """Returns ids of the `k` best memories by vectors and by words together.

    `words` `[n]` are scores of the bank's memories in order. The two orders are joined by
    reciprocal rank fusion with the constant 60 (Cormack, Clarke and Buettcher, SIGIR 2009); a
    memory that shares no word with the query has no rank there.
    """
    ids = list(bank.items)
    orders = [
        [identity for identity, _ in nearest(bank, query, len(ids), embed)],
        [ids[place] for place in top(words, len(ids)) if words[place] > 0],
    ]
    score = dict.fromkeys(ids, 0.0)
    for order in orders:
        for rank, identity in enumerate(order, start=1):
            score[identity] += 1 / (60 + rank)
    return sorted(ids, key=lambda identity: -score[identity])[:k]
