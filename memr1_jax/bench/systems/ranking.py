"""Chooses what rows without memory management show for a question.

A `Search` takes all memories and returns a function from a question to those that are shown; its
preparation serves all questions until the memories change.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from memr1_jax.bench.systems.protocol import Memory
from memr1_jax.bench.systems.text_bank import Embed, top
from memr1_jax.data.types import Question
from memr1_jax.text.folding import MARK, bigrams, character_class, fold_text

Choose: TypeAlias = Callable[[Question], list[Memory]]
Search: TypeAlias = Callable[[Sequence[Memory]], Choose]
Rerank: TypeAlias = Callable[[str, Sequence[Memory]], list[Memory]]


def nothing(memories: Sequence[Memory]) -> Choose:
    """Shows no memory at all: the question alone."""
    return lambda question: []


def everything(memories: Sequence[Memory]) -> Choose:
    """Shows all memories in order of time."""
    return lambda question: list(memories)


def newest(tokens: int, count: Callable[[str], int]) -> Search:
    """Shows the last memories that `tokens` tokens hold, times not counted, in order of time."""

    def search(memories: Sequence[Memory]) -> Choose:
        kept, room = [], tokens
        for memory in reversed(memories):
            room -= count(memory.text)
            if room < 0:
                break
            kept.append(memory)
        return lambda question: kept[::-1]

    return search


def evidence(memories: Sequence[Memory]) -> Choose:
    """Shows the memories of the turns that are marked as the question's evidence: an oracle."""
    return lambda question: [m for m in memories if set(m.sources) & set(question.evidence)]


def bm25(k: int) -> Search:
    """Shows the `k` best by BM25 (rank_bm25, its defaults) over lower-case words."""

    def search(memories: Sequence[Memory]) -> Choose:
        scores = bm25_scores([memory.text for memory in memories])
        return lambda question: [memories[i] for i in top(scores(question.question), k)]

    return search


def dense(k: int, embed: Embed) -> Search:
    """Shows the `k` best by the inner product of vectors."""

    def search(memories: Sequence[Memory]) -> Choose:
        if not memories:
            return lambda question: []
        keys = embed([memory.text for memory in memories])
        return lambda question: [memories[i] for i in top(keys @ embed([question.question])[0], k)]

    return search


def bm25_reranker(keep: int) -> Rerank:
    """Orders memories among themselves by BM25 with the question; keeps the first `keep`."""

    def rerank(question: str, memories: Sequence[Memory]) -> list[Memory]:
        scores = bm25_scores([memory.text for memory in memories])
        return [memories[i] for i in top(scores(question), keep)]

    return rerank


def dense_reranker(keep: int, embed: Embed) -> Rerank:
    """Does the same by the inner product of another embedder's vectors."""

    def rerank(question: str, memories: Sequence[Memory]) -> list[Memory]:
        if not memories:
            return []
        vectors = embed([question, *(memory.text for memory in memories)])
        return [memories[i] for i in top(vectors[1:] @ vectors[0], keep)]

    return rerank


def bm25_scores(texts: Sequence[str]) -> Callable[[str], np.ndarray]:
    """Returns a function from a query to BM25 scores `[n]` of n texts (rank_bm25, its defaults).

    Words are folded, and cut into pairs of characters in scripts without spaces.
    """
    from rank_bm25 import BM25Okapi

    def cut(text):
        words = re.findall(rf"[\w{character_class(MARK)}]+", fold_text(text))
        return [part for word in words for part in bigrams(word)]

    words = list(map(cut, texts))
    if not any(words):
        return lambda query: np.zeros(len(texts))
    index = BM25Okapi(words)
    return lambda query: np.asarray(index.get_scores(cut(query)))
