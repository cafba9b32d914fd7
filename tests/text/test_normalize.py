import os
import unicodedata

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1_jax.text.normalize import (
    decode_utf8,
    normalize_text,
    unicode_tables,
    words_of_bytes,
    words_of_text,
)

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200
BATCH, CAPACITY, MAX_WORDS = 20, 64, 12

PARTS = st.sampled_from(
    "a an the The AN . , ' \" - _ – ’ “ − £ é É ß İ Σ ς 王 🎈 𝒳 0 9 B dog Dog\u00a0 \u2003 \x1c "
    "\x85 \u200b \t \n \x00 東 京 か \u3099 ｶ Ｆ 。 ไ ท ก\u0e33 가 \u1100 \u1161 ệ ạ\u0302 Å "
    "\u0344 ẞ".split(" ")
    + [" ", "  ", "the ", " a ", "\u0301", "a\u0301", "東\u0301"]
)
TEXT = st.lists(st.one_of(PARTS, st.text(max_size=3)), max_size=14).map("".join)


@jax.jit
def _device(tables, text, start, end):
    return jax.vmap(lambda t, s, e: words_of_bytes(tables, t, s, e, MAX_WORDS))(text, start, end)


def _rows(items):
    text = np.full((len(items), CAPACITY), ord("x"), np.uint8)
    for i, item in enumerate(items):
        text[i, : len(item)] = np.frombuffer(item, np.uint8)
    return text, np.array([len(item) for item in items], np.int32)


def _words(text):
    """Returns the hashed words of the plain-Python rule."""
    return words_of_text(normalize_text(text, plain_marks=True), MAX_WORDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  cat, and THE dog.", "cat and dog"),
        ("self-care", "selfcare"),
        ("theatre a-b an_a", "theatre ab ana"),
        ("x'a'y", "xay"),
        ("the the", "the the"),
        ("(A)", "a"),
        ("a ...", "a"),
        ("... !", "... !"),
        (" ", ""),
        ("Café\u00a0Ünï", "café ünï"),
        ("CAFE\u0301 ΣΊΣΥΦΟΣ", "café σίσυφοσ"),
        ("Ｆｕｌｌ　width！", "full width"),
        ("東京、大阪。", "東 京 大 阪"),
        ("ｶﾞ が か\u3099", "ガ が が"),
        ("ภาษาไทย 12", "ภ า ษ า ไ ท ย 12"),
        ("aไ the東 an", "ไ 東"),
        (unicodedata.normalize("NFD", "한국어 ệ"), "한국어 ệ"),
    ],
)
def test_golden_normalisation(text, expected):
    assert normalize_text(text) == expected
    same = words_of_text(text, 8), words_of_text(expected, 8)
    np.testing.assert_array_equal(same[0].hash, same[1].hash)
    assert same[0].count == len(expected.split())


def test_typographic_marks_are_plain_in_the_reward():
    assert normalize_text("Ana’s “self‑care” – now") == "ana’s “self‑care” – now"
    assert normalize_text("Ana’s “self‑care” – now", plain_marks=True) == "anas selfcare now"
    same = words_of_text("Ana’s “self‑care” – now", 8), words_of_text("Anas selfcare now", 8)
    np.testing.assert_array_equal(same[0].hash, same[1].hash)


@settings(max_examples=CASES // BATCH, deadline=None)
@given(st.lists(TEXT, min_size=BATCH, max_size=BATCH))
def test_device_host_and_python_agree(texts):
    items = [text.encode("utf-8", "replace")[:CAPACITY] for text in texts]
    text, length = _rows(items)
    result = jax.tree.map(np.asarray, _device(unicode_tables(), text, length * 0, length))
    for i, item in enumerate(items):
        decoded = item.decode("utf-8", "replace")
        for expected in (words_of_text(decoded, MAX_WORDS), _words(decoded)):
            np.testing.assert_array_equal(result.hash[i], expected.hash)
            assert result.count[i] == expected.count
            assert result.overflow[i] == expected.overflow


@settings(max_examples=CASES // BATCH, deadline=None)
@given(st.lists(st.binary(max_size=CAPACITY), min_size=BATCH, max_size=BATCH), st.integers(0, 9))
def test_any_bytes_and_any_span(items, start):
    leads = bytes([0xE2, 0x82, 0xF0, 0x9F, 0xED, 0xA0, 0x80, 0xC0, 0x20])
    items = [bytes(leads[b % 9] if b < 160 else b for b in item) for item in items]
    text, length = _rows(items)
    result = jax.tree.map(
        np.asarray, _device(unicode_tables(), text, length * 0 + start, length - start)
    )
    decoded = jax.vmap(decode_utf8, (0, 0, 0))(text, length * 0, length)
    for i, item in enumerate(items):
        inner = item[start : max(len(item) - start, 0)].decode("utf-8", "replace")
        expected = words_of_text(inner, MAX_WORDS)
        np.testing.assert_array_equal(result.hash[i], expected.hash)
        codes = np.asarray(decoded[0][i])[np.asarray(decoded[1][i])]
        assert "".join(map(chr, codes)) == item.decode("utf-8", "replace")


def test_tables_fold_the_case_of_every_code_point_as_python_does():
    tables = unicode_tables()
    code = np.array([c for c in range(0x110000) if not 0xD800 <= c < 0xE000])
    lowered = code + tables.shift[tables.page[code >> 8], code & 0xFF]
    pairs = zip(code, lowered, strict=True)
    letters = [(chr(c), chr(low)) for c, low in pairs if low < 0x2E80 and chr(c).isalpha()]
    differ = {c for c, low in letters if low not in (c.lower(), c.casefold())}
    assert differ == {"İ", *(c for c in differ if unicodedata.decomposition(c))}
    assert all(low == c.lower() for c, low in letters if c.isascii())


def test_composed_and_decomposed_texts_have_the_same_words():
    forms = [[], []]
    for code in [*range(0x20, 0xD800), *range(0xE000, 0x30000)]:
        decomposed = unicodedata.normalize("NFD", chr(code))
        if decomposed != chr(code) and code != 0x130:
            forms[0].append(f"x{chr(code)}y")
            forms[1].append(f"x{decomposed}y")
    assert len(forms[0]) > 12_000
    for start in range(0, len(forms[0]), 500):
        one, two = (words_of_text(" ".join(f[start : start + 500]), 2000) for f in forms)
        np.testing.assert_array_equal(one.hash, two.hash)


def test_overflow_is_told():
    words = words_of_text("one two three", 2)
    assert words.overflow and words.count == 2
    text, length = _rows([b"w " * 30])
    result = _device(unicode_tables(), text, length * 0, length)
    assert bool(result.overflow[0]) and int(result.count[0]) == MAX_WORDS
