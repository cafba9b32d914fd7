"""The plain bank: ids, sources, order of what is found in it."""

import numpy as np
import pytest

from memr1_jax.bench.systems import text_bank as banks
from memr1_jax.bench.systems.neighbours import nearest
from memr1_jax.bench.systems.protocol import Memory
from memr1_jax.bench.systems.text_bank import Bank

WORDS = ("tea", "dog", "Oslo")


def count_words(texts):
    """Counts of three words, [n, 3]."""
    return np.array([[text.count(word) for word in WORDS] for text in texts], np.float32)


def of(*texts):
    return [Memory(text, "noon", "Ann", (f"D1:{n}",)) for n, text in enumerate(texts)]


def test_ids_go_on_after_a_deletion():
    bank = banks.add(Bank(), of("tea", "dog"), count_words)
    bank = banks.delete(bank, 1)
    bank = banks.add(bank, of("Oslo"), count_words)
    assert list(bank.items) == [0, 2]
    assert [memory.text for memory in bank.memories] == ["tea", "Oslo"]
    with pytest.raises(KeyError):
        banks.delete(bank, 1)


def test_update_changes_text_key_and_time_and_gathers_sources():
    before = banks.add(Bank(), of("tea", "dog"), count_words)
    new = Memory("Oslo", "night", "Ann", ("D2:1", "D1:0"))
    after = banks.update(before, 0, new, count_words)
    assert after.items[0] == Memory("Oslo", "night", "Ann", ("D1:0", "D2:1"))
    assert [identity for identity, _ in nearest(after, "Oslo", 1, count_words)] == [0]
    assert before.items[0].text == "tea"
    with pytest.raises(KeyError):
        banks.update(before, 2, new, count_words)


def test_the_nearest_come_by_score_then_by_id():
    bank = banks.add(Bank(), of("dog", "tea", "tea tea", "tea"), count_words)
    assert nearest(bank, "tea", 3, count_words) == [(2, 2.0), (1, 1.0), (3, 1.0)]
    assert nearest(bank, "dog", 3, count_words) == [(0, 1.0), (1, 0.0), (2, 0.0)]
    assert nearest(Bank(), "tea", 5, count_words) == []
