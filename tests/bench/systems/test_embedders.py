"""Vectors of texts."""

import numpy as np
from tiny_model import make_tiny

from memr1_jax.bench.systems.embedders import remembering, token_embedder

TEXTS = ["Ann has a dog named Rex.", "tea", "Ben likes cake. " * 20, "Where does Ann live?"]


def test_vectors_are_those_of_the_bank_on_the_device():
    tiny = make_tiny()
    embed = token_embedder(tiny.model.tokenizer, tiny.pair.tools.embedder)
    short = [text for text in TEXTS if len(text) < 40]  # a memory's width cuts the others
    np.testing.assert_allclose(embed(short), tiny.pair.encoder.keys(short), atol=1e-6)


def test_the_order_and_the_company_change_nothing():
    tiny = make_tiny()
    embed = token_embedder(tiny.model.tokenizer, tiny.pair.tools.embedder)
    together = embed(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(embed([text])[0], vector)  # to the last bit
    np.testing.assert_array_equal(embed(TEXTS * 20)[-len(TEXTS) :], together)


def test_a_text_is_embedded_once():
    asked = []

    def lengths(texts):
        asked.append(list(texts))
        return np.array([[len(text)] for text in texts], np.float32)

    embed = remembering(lengths, most=2)
    assert embed(["a", "bbb", "a"]).tolist() == [[1], [3], [1]]
    assert embed(["bbb", "cc"]).tolist() == [[3], [2]]
    assert asked == [["a", "bbb"], ["cc"]]
    assert embed(["a"]).tolist() == [[1]]  # it was dropped
    assert asked[-1] == ["a"]
