"""Words for retrieval: what the device hashes is what the host cuts and hashes."""

import unicodedata

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1_jax.text.folding import unicode_tables, words_to_search
from memr1_jax.text.word_hashes import hash_word, hash_words

BATCH, CAPACITY, MOST = 20, 96, 24
PARTS = st.sampled_from(
    "a Dog 2021 é É e\u0301 ß ẞ İ Σ ς ’ ' - _ 。 、 東 京 王 か が か\u3099 ｶ ﾞ ー ไ ท ก\u0e33 กั "
    "가 한 \u1100 \u1161 ệ ạ\u0302 ê\u0323 Å \u0344 🎈 ❤\ufe0f 𝒳 Ｆｕｌｌ \u09c7\u09be \u0301 ٣ "
    "\u3000 \n".split(" ")
    + ["  "]
)
TEXT = st.lists(st.one_of(PARTS, st.text(max_size=3)), max_size=14).map("".join)


@jax.jit
def _device(tables, text, length):
    return jax.vmap(lambda t, n: hash_words(tables, t, n, MOST))(text, length)


def device(texts):
    text, length = np.full((BATCH, CAPACITY), ord("x"), np.uint8), np.zeros(BATCH, np.int32)
    for i, item in enumerate(texts):
        item = item.encode("utf-8", "replace")[:CAPACITY]
        text[i, : len(item)], length[i] = np.frombuffer(item, np.uint8), len(item)
    rows = np.asarray(_device(unicode_tables(), text, length))
    return [row[row != 0].tolist() for row in rows[: len(texts)]]


@settings(max_examples=20, deadline=None)
@given(st.lists(TEXT, min_size=BATCH, max_size=BATCH))
def test_the_device_hashes_the_words_of_the_host(texts):
    whole = [t.encode("utf-8", "replace")[:CAPACITY].decode("utf-8", "replace") for t in texts]
    expected = [[hash_word(word) for word in words_to_search(text)][:MOST] for text in whole]
    assert device(texts) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ana's DOG, re-adopted in 2021!", ["ana", "s", "dog", "re", "adopted", "in", "2021"]),
        ("CAFÉ Cafe\u0301", ["café", "café"]),
        ("Straße ΣΊΣΥΦΟΣ", ["straße", "σίσυφοσ"]),
        ("東京タワー、猫。", ["東京", "京タ", "タワ", "ワー", "猫"]),
        ("ｶﾞｽ か\u3099く", ["ガス", "がく"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("한국어 " + unicodedata.normalize("NFD", "한국어"), ["한국어", "한국어"]),
        ("Ｆｕｌｌ　ｗｉｄｔｈ！iPhone手机", ["full", "width", "iphone", "手机"]),
        ("“Oscar” — ❤\ufe0f", ["oscar"]),
    ],
)
def test_words_are_folded_and_cut(text, words):
    assert words_to_search(text) == words
    assert device([text]) == [[hash_word(word) for word in words]]


def test_words_of_ascii_are_hashed_byte_by_byte():
    """Keeps the features of plain English, and so all results on it, what they were."""
    value = 0
    for byte in b"adopted":
        value = (value * 16777619 + byte + 1) % 2**32
    assert hash_word("adopted") == value


def test_composed_and_decomposed_forms_have_one_hash():
    for code in [*range(0xC0, 0xAC00), *range(0xAC00, 0xD7A4, 29), *range(0xF900, 0x30000)]:
        character = chr(code)
        decomposed = unicodedata.normalize("NFD", character)
        if decomposed != character and code != 0x130:
            one, two = (words_to_search(f"x{form}y") for form in (character, decomposed))
            assert list(map(hash_word, one)) == list(map(hash_word, two)), hex(code)
