"""The plain bank: ids, sources, order of what is found."""

import numpy as np
import pytest

from memr1_jax.evals.systems import bank as banks
from memr1_jax.evals.systems.bank import Bank
from memr1_jax.evals.systems.protocol import Memory

WORDS = ("tea", "dog", "Oslo")


def count_words(texts):
    """Counts of three words, [n, 3]."""
    return np.array([[text.count(word) for word in WORDS] for text in texts], np.float32)


def of(*texts, owner="Ann"):
    return [Memory(text, "noon", owner, (f"D1:{n}",)) for n, text in enumerate(texts)]


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
    assert banks.search(after, ["Oslo"], 1, count_words) == [[0]]
    assert before.items[0].text == "tea"
    with pytest.raises(KeyError):
        banks.update(before, 2, new, count_words)


def test_search_orders_by_score_then_by_id():
    texts = of("dog", "tea", "tea tea", "tea")
    bank = banks.add(Bank(), texts, count_words)
    assert banks.search(bank, ["tea", "dog"], 3, count_words) == [[2, 1, 3], [0, 1, 2]]


def test_search_keeps_to_the_owner():
    bank = banks.add(Bank(), [*of("tea tea"), *of("tea", owner="Ben")], count_words)
    assert banks.search(bank, ["tea"], 5, count_words, owner="Ben") == [[1]]
    assert banks.search(bank, ["tea"], 5, count_words, owner="Eva") == [[]]
    assert banks.search(Bank(), ["tea"], 5, count_words) == [[]]
