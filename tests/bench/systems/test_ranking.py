"""Checks what the rows without memory management find."""

import numpy as np
import pytest

from memr1_jax.bench.systems.protocol import Memory
from memr1_jax.bench.systems.ranking import bm25, bm25_scores
from memr1_jax.data.types import Question


@pytest.mark.parametrize(
    ("query", "texts"),
    [
        ("东京塔在哪里？", ["我喜欢喝茶。", "我去了东京塔。", "今天下雨了。"]),
        ("犬の名前は", ["昨日ケーキを焼いた。", "私の犬の名前はポチ。", "雨が降る。"]),
        ("ÉCOLE", ["un chien", "l'e\u0301cole", "le pain"]),
        ("ＤＯＧ\ud83d", ["a cat", "the dog", "some bread"]),
    ],
)
def test_bm25_finds_words_of_every_script(query, texts):
    assert np.argmax(bm25_scores(texts)(query)) == 1
    memories = [Memory(text, "May") for text in texts]
    assert bm25(1)(memories)(Question(query, "", 1, (), 0)) == memories[1:2]


def test_bm25_scores_of_plain_english_are_those_of_its_lower_case_words():
    import re

    from rank_bm25 import BM25Okapi

    texts = ["Ana's DOG, snake_case 3.5!", "Ben likes tea and the dog.", "It rains."]
    query = "The dog of Ana, snake_case?"
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    expected = BM25Okapi(words).get_scores(re.findall(r"\w+", query.lower()))
    np.testing.assert_array_equal(bm25_scores(texts)(query), expected)
