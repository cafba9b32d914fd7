import os
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1_jax.text.match import contains, exact_match, token_f1
from memr1_jax.text.normalize import normalize_text, words_of_text

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200
BATCH, A, B = 20, 10, 6


def _exact(prediction, gold):
    return float(normalize_text(prediction) == normalize_text(gold) != "")


def _f1(prediction, gold):
    left, right = normalize_text(prediction).split(), normalize_text(gold).split()
    common = sum((Counter(left) & Counter(right)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(left), common / len(right)
    return 2 * precision * recall / (precision + recall)


def _contains(prediction, gold):
    left, right = normalize_text(prediction).split(), normalize_text(gold).split()
    places = range(len(left) - len(right) + 1)
    return float(bool(right) and any(left[i : i + len(right)] == right for i in places))


@jax.jit
@jax.vmap
def _scores(prediction, gold):
    return exact_match(prediction, gold), token_f1(prediction, gold), contains(prediction, gold)


def _stack(texts, size):
    return jax.tree.map(lambda *rows: np.stack(rows), *(words_of_text(t, size) for t in texts))


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "f1", "inside"),
    [
        ("7 May 2023", "7 May 2023", 1, 1, 1),
        ("May 7, 2023", "7 May 2023", 0, 1, 0),
        ("She went on the 7th of May, 2023.", "7 May 2023", 0, 0.4, 0),
        ("She went on 7 May 2023, I think", "the 7 May 2023", 0, 6 / 11, 1),
        ("the the", "the", 0, 2 / 3, 1),
        ("", "self-care", 0, 0, 0),
        ("", "the", 0, 0, 0),
        ("a", "(A)", 1, 1, 1),
        ("B", "A", 0, 0, 0),
        ("...", "...", 1, 1, 1),
        ("Ana’s – so", "Ana's - so", 1, 1, 1),
        ("a bird", "bird bird", 0, 2 / 3, 0),
        ("Self-care!", "the selfcare", 1, 1, 1),
    ],
)
def test_golden_scores(prediction, gold, exact, f1, inside):
    scores = _scores(_stack([prediction], A), _stack([gold], B))
    np.testing.assert_allclose(np.concatenate(scores), [exact, f1, inside], rtol=1e-6)


SENTENCE = st.lists(st.sampled_from(["x", "Y", "z", "the", "x.", "!"]), max_size=B).map(" ".join)
LONGER = st.lists(st.sampled_from(["x", "Y", "z", "the", "q"]), max_size=A).map(" ".join)


@settings(max_examples=CASES // BATCH, deadline=None)
@given(st.lists(st.tuples(LONGER, SENTENCE), min_size=BATCH, max_size=BATCH))
def test_scores_equal_python(pairs):
    scores = _scores(_stack([p for p, _ in pairs], A), _stack([g for _, g in pairs], B))
    for name, device in zip((_exact, _f1, _contains), scores, strict=True):
        np.testing.assert_allclose(device, [name(*pair) for pair in pairs], rtol=1e-6)


def test_an_answer_too_long_for_its_array_is_no_match():
    words = " ".join("abcdefghijkl")
    exact, f1, inside = _scores(_stack([words], 4), _stack([words], 4))
    assert (float(exact[0]), float(inside[0])) == (0, 0)
    assert float(f1[0]) == 1  # of the words that are held
