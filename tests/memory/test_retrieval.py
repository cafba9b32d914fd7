"""Retrieval on handmade banks, and its recall on LoCoMo."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.memory.bank import bank_from_facts, delete
from memr1_jax.memory.build_embedder import build_tfidf
from memr1_jax.memory.embedder import embed
from memr1_jax.memory.retrieval import Retrieved, merge_unique, retrieve


def bank_of(keys, capacity=5):
    n = len(keys)
    return bank_from_facts([[1]] * n, np.array(keys), [0] * n, range(n), capacity=capacity, width=1)


def test_the_best_live_memories_come_first_and_ties_go_to_the_lower_slot():
    bank = bank_of([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0], [0.6, 0.8]])
    found = jax.jit(retrieve, static_argnums=2)(bank, jnp.array([1.0, 0.0]), 3)
    assert found.slot.tolist() == [2, 1, 3]
    np.testing.assert_allclose(found.score, [1, 0.6, 0.6], rtol=1e-6)
    assert found.valid.all()


def test_dead_slots_are_never_found():
    bank = delete(jax.device_put(bank_of([[1.0, 0.0], [-1.0, 0.0]])), 0)
    found = retrieve(bank, jnp.array([1.0, 0.0]), 8)  # more than there are slots
    assert found.slot.tolist() == [1] + [5] * 7
    assert found.valid.tolist() == [True] + [False] * 7
    assert found.score[0] == -1 and np.all(np.isneginf(found.score[1:]))


def test_neighbours_of_several_facts_merge_by_their_best_score():
    found = Retrieved(
        slot=jnp.array([[3, 1, 0], [1, 4, 2]]),
        score=jnp.array([[0.9, 0.2, 0.1], [0.5, 0.5, 0.3]]),
        valid=jnp.array([[True, True, True], [True, True, False]]),
    )
    merged = jax.jit(merge_unique, static_argnums=(1, 2))(found, 6, 5)
    assert merged.slot.tolist() == [3, 1, 4, 0, 6]
    assert merged.valid.tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(merged.score[:4], [0.9, 0.5, 0.5, 0.1], rtol=1e-6)
    assert merge_unique(found, 6, 2).slot.tolist() == [3, 1]


def test_a_question_finds_its_memory():
    from experiments.retrieval_recall import train_tokenizer

    texts = [
        "Ana: I adopted two dogs called Oscar and Otto.",
        "Ana: We hiked around the lake with friends.",
        "Ana: My sister is moving to Lisbon.",
        "Ana: Thanks!",
        "Ana: I started to learn the violin.",
    ]
    queries = {
        "When were the dogs adopted by Ana?": 0,
        "Which friend hiked with Ana?": 1,
        "To which city does the sister of Ana moving?": 2,
        "What does Ana learn?": 4,
    }
    tokenizer = train_tokenizer(texts)
    embedder = build_tfidf(tokenizer, len(tokenizer), texts)

    @jax.jit
    def embed_row(embedder, tokens, length):
        return embed(embedder, tokens, length)

    def key(text):
        ids = tokenizer(text)["input_ids"]
        return embed_row(embedder, np.array(ids + [0] * (48 - len(ids)), np.int32), len(ids))

    bank = bank_of([np.asarray(key(text)) for text in texts])
    for query, slot in queries.items():
        assert retrieve(bank, key(query), 1).slot.tolist() == [slot], query


@pytest.mark.slow
def test_recall_on_locomo_is_not_below_bm25():
    """Uses a tokenizer of the module's own, so that nothing else is needed."""
    path = os.environ.get("MEMR1_LOCOMO")
    if not path:
        pytest.skip("MEMR1_LOCOMO does not name a LoCoMo file")
    from experiments.retrieval_recall import (
        mean_recall,
        memories,
        most,
        rank_by_bm25,
        rank_by_embedder,
        train_tokenizer,
    )
    from memr1_jax.data.locomo import load_conversations, split

    conversations = load_conversations(path)
    known = split(conversations, "train") + split(conversations, "validation")
    texts = [text for conversation in known for text in memories(conversation)]
    tokenizer = train_tokenizer(texts)
    embedder = jax.device_put(build_tfidf(tokenizer, len(tokenizer), texts))
    test = split(conversations, "test")
    sizes = most(test, tokenizer)
    ours = mean_recall(functools.partial(rank_by_embedder, tokenizer, embedder, sizes), test)
    bm25 = mean_recall(rank_by_bm25, test)
    assert 0.61 < bm25[-1] < 0.63  # the yardstick itself
    assert ours[-1] > bm25[-1]
