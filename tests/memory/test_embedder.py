"""Embeddings against a plain dictionary of words, and against tables small enough to add up."""

import json
import math
from collections import Counter

import jax
import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.memory.build_embedder import build_static, build_tfidf
from memr1_jax.memory.embedder import (
    StaticVectors,
    concatenate_embedders,
    embed,
    embedding_width,
)

TEXTS = [
    "Ana: I painted a sunset by the lake.",
    "Ben: The paintings at the lake were great, Ana!",
    "Ana: My dog is called Oscar; he was adopted in 2021.",
    "Ben: Adopting dogs is kind.",
]
WIDTH = 96
embed_rows = jax.jit(jax.vmap(embed, (None, 0, 0)))


def train(texts, merges):
    """Returns a byte-level tokenizer that has learnt so many merges from the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def rows(tokenizer, texts, padding=0):
    tokens = np.full((len(texts), WIDTH), padding, np.int32)
    length = np.zeros(len(texts), np.int32)
    for i, text in enumerate(texts):
        ids = tokenizer.encode(text).ids
        tokens[i, : len(ids)], length[i] = ids, len(ids)
    return tokens, length


@pytest.fixture(scope="module")
def tokenizer():
    return train(TEXTS, 60)


@pytest.fixture(scope="module")
def tfidf(tokenizer):
    return build_tfidf(tokenizer, 400, TEXTS, features=4096)


def test_tfidf_equals_the_sum_over_a_dictionary(tfidf, tokenizer):
    """Compares with dictionaries, as none of these stems collide in 4,096 features."""
    texts = [
        "Painted a lake, paintings!",
        "the dogs of Ana",
        "Zebras in 2021",
        "dog dog dog zebras",
    ]
    stems = [
        ["paint", "lake", "paint"],
        ["dog", "ana"],
        ["zebras", "2021"],  # a word that nobody knows stays as it is
        ["dog", "dog", "dog", "zebras"],
    ]
    documents = {"paint": 2, "lake": 2, "dog": 2, "ana": 3, "zebras": 0, "2021": 1}
    weight = {word: math.log(5 / (count + 0.5)) for word, count in documents.items()}
    vectors = [
        {word: weight[word] * (1 + math.log(n)) for word, n in Counter(words).items()}
        for words in stems
    ]
    pivot = float(tfidf.pivot)
    assert pivot > 0

    def similarity(a, b):
        product = sum(a[word] * b[word] for word in a.keys() & b.keys())
        sizes = (sum(value**2 for value in v.values()) + pivot for v in (a, b))
        return product / math.sqrt(math.prod(sizes))

    found = np.asarray(embed_rows(tfidf, *rows(tokenizer, texts)))
    expected = [[similarity(a, b) for b in vectors] for a in vectors]
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-5)


def test_how_words_are_cut_makes_no_difference():
    texts = [*TEXTS, "Ana's café — naïve dogs, DOGS and 2021cats", "“Oscar”"]
    cuts = [train(TEXTS, merges) for merges in (0, 20, 200)]
    found = []
    for cut in cuts:
        embedder = build_tfidf(cut, 500, texts, features=256)
        found.append(np.asarray(embed_rows(embedder, *rows(cut, texts))))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)


@pytest.mark.parametrize(
    ("query", "memories"),
    [
        ("东京塔在哪里？", ["我去了东京塔。", "我喜欢喝茶。"]),
        ("犬の名前は何ですか", ["私の犬の名前はポチです。", "昨日ケーキを焼いた。"]),
        ("ชอบกินอะไร", ["ฉันชอบกินข้าว", "แม่เดินทาง"]),
        ("ÉCOLE à Zürich", ["l'e\u0301cole est a\u0300 zu\u0308rich", "un chien"]),
        ("ＤＯＧ　２０２１", ["a dog in 2021", "a cat"]),
        ("где живёт АННА?", ["Анна живёт в Осло.", "Борис поёт."]),
    ],
)
def test_every_script_finds_its_memory(tfidf, tokenizer, query, memories):
    right, wrong = (
        np.asarray(embed_rows(tfidf, *rows(tokenizer, [query, *memories])))[1:]
        @ (np.asarray(embed_rows(tfidf, *rows(tokenizer, [query])))[0])
    )
    assert right > 0.1 > abs(wrong)


def test_only_tokens_within_the_length_count(tfidf, tokenizer):
    noise = tokenizer.encode("dog").ids[0]
    plain = embed_rows(tfidf, *rows(tokenizer, TEXTS))
    padded = embed_rows(tfidf, *rows(tokenizer, TEXTS, padding=noise))
    assert np.array_equal(plain, padded)


def test_texts_without_content_are_zero(tfidf, tokenizer):
    found = embed_rows(tfidf, *rows(tokenizer, ["", "what is the", "?! ..."]))
    assert not np.any(found)


def test_static_vectors_add_rows():
    table = np.array([[1, 0], [0, 2], [3, 3]], np.float32)
    tokens = np.array([[0, 1, 1, 2], [2, 2, 2, 2]], np.int32)
    found = embed_rows(StaticVectors(table, np.float32(0)), tokens, np.array([3, 0]))
    np.testing.assert_allclose(found, [[1 / 17**0.5, 4 / 17**0.5], [0, 0]], rtol=1e-6)
    found = embed_rows(StaticVectors(table, np.float32(8)), tokens, np.array([3, 0]))
    np.testing.assert_allclose(found[0], [0.2, 0.8], rtol=1e-6)


def test_a_concatenation_mixes_similarities(tfidf, tokenizer):
    table = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    static = StaticVectors(table, np.float32(1))
    both = concatenate_embedders(tfidf, static, 0.75)
    assert embedding_width(both) == 4096 + 8
    one, two, mixed = (
        np.asarray(embed_rows(embedder, *rows(tokenizer, TEXTS)))
        for embedder in (tfidf, static, both)
    )
    expected = 0.75 * one @ one.T + 0.25 * two @ two.T
    np.testing.assert_allclose(mixed @ mixed.T, expected, atol=1e-5)


def test_static_rows_are_means_over_the_other_tokenizer(tmp_path, tokenizer):
    from safetensors.numpy import save_file

    other = train([], 0)  # one token a byte
    matrix = np.random.default_rng(1).normal(size=(other.get_vocab_size(), 4)).astype(np.float16)
    save_file({"embedding": matrix}, tmp_path / "vectors.safetensors")
    other.save(str(tmp_path / "tokenizer.json"))
    files = tmp_path / "vectors.safetensors", tmp_path / "tokenizer.json"
    built = build_static(tokenizer, 400, TEXTS, *files)
    token = tokenizer.encode(" lake").ids
    assert len(token) == 1
    expected = matrix[other.encode("lake").ids].astype(np.float32).mean(axis=0)
    np.testing.assert_allclose(built.table[token[0]], expected, rtol=1e-6)
    assert built.table.shape == (400, 4) and built.pivot > 0


def test_what_cannot_be_built_is_told(tmp_path, tokenizer):
    with pytest.raises(UserError, match="sample texts"):
        build_tfidf(tokenizer, 400, [])
    (tmp_path / "tokenizer.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="wordllama"):
        build_static(tokenizer, 400, TEXTS, tmp_path / "none", tmp_path / "tokenizer.json")
