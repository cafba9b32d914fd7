"""PersonaMem's rule for options, with its traps, and the one that avoids them."""

import csv
import os
import pathlib

import pytest

from memr1_jax.bench.multiple_choice import (
    MULTIPLE_CHOICE_METRICS,
    choose_marked,
    choose_official,
    score_multiple_choice,
)


@pytest.mark.parametrize(
    ("response", "key", "official", "marked"),
    [
        ("<final_answer> (c)", "(c)", 1, 1),
        ("I rule out (a) and (b). <final_answer>(c)</final_answer>", "(c)", 1, 1),
        ("<final_answer> (a) no: <final_answer> (D)", "(d)", 1, 1),  # the last mark counts
        ("<final_answer> (a) or (c)", "(c)", 0, 0),
        ("<final_answer> B.", "(b)", 1, 1),
        ("b", "b", 1, 1),
        ("(b) because it fits. <final_answer>", "(b)", 1, 1),  # nothing after the mark: the whole
        ("(b) <final_answer> (c)", "(b)", 0, 0),
        ("<final_answer> none of them", "(b)", 0, 0),
        ("", "(a)", 0, 0),
        # The article, and the d of a contraction: right by accident under the published rule.
        ("Take a walk by the sea.", "(a)", 1, 0),
        ("I'd go to the sea.", "(d)", 1, 0),
        ("<final_answer> b, for a walk", "(b)", 0, 1),
        ("<final_answer> A", "(a)", 1, 1),
        ("The answer is A because of the sea.", "(a)", 1, 1),
        ("The answer is a walk.", "(a)", 1, 0),
        ("Let me answer a question with: A", "(a)", 1, 1),
        ("I choose option a for its colour.", "(a)", 1, 1),
        ("Option a\nIt fits.", "(a)", 1, 1),
        ("a\nIt fits.", "(a)", 1, 1),
    ],
)
def test_scores(response, key, official, marked):
    expected = dict(zip(MULTIPLE_CHOICE_METRICS, (official, marked), strict=True))
    assert score_multiple_choice(response, key) == expected


def test_brackets_come_before_letters_that_stand_alone():
    text = "A user would like (b), or d"
    assert choose_official(text) == choose_marked(text) == {"b"}
    assert choose_official("A user would like b, or d") == {"a", "b", "d"}
    assert choose_marked("A user would like b, or d") == {"b", "d"}


def test_a_key_that_is_no_option_is_refused():
    with pytest.raises(ValueError, match="not one of the options"):
        score_multiple_choice("(a)", "(e)")


def test_constant_answers_over_the_whole_file():
    """Checks the shares of the four keys at 32k: the best constant guess is right in 26.8 %."""
    folder = os.environ.get("MEMR1_PERSONAMEM")
    if not folder:
        pytest.skip("MEMR1_PERSONAMEM does not name a folder with questions_32k.csv")
    with open(pathlib.Path(folder) / "questions_32k.csv", encoding="utf-8", newline="") as file:
        keys = [row["correct_answer"] for row in csv.DictReader(file)]
    right = [
        sum(score_multiple_choice(f"({letter})", key)[name] for key in keys)
        for letter in "abcd"
        for name in MULTIPLE_CHOICE_METRICS[:1]
    ]
    assert right == [143, 146, 158, 142]
    assert round(max(right) / len(keys), 3) == 0.268
