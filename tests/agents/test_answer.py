"""Checks what the Answer Agent is shown, and how its answers are judged."""

import dataclasses
import os
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import bank_of, row_of, stack, word_f1

from memr1_jax.agents.answer import answer_prompt, judge_answer, retrieve_memories
from memr1_jax.data.batches import Query, Scene
from memr1_jax.evals.metrics import exact_match
from memr1_jax.text.answer_span import AnswerRule, extract_answer
from memr1_jax.text.normalize import normalize_text, words_of_text

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200
NAMES = ("Ana", "Tom")
TIMES = ["1:56 pm on 8 May, 2023", "9:10 am on 2 June, 2023"]
MEMORIES = (
    ["Ana has a dog named Rex.", "Ana lives in Lyon.", "Ana likes green tea."],
    ["Tom met the dog Rex.", "Tom works as a nurse."],
)
WHEN = ([0, 1, 0], [1, 0])
QUESTION = "What is the name of the dog that Ana has?"


@pytest.fixture(scope="module")
def shown(tiny):
    """Returns both banks, the scene, the query, and the prompt from them."""
    encoder = tiny.pair.encoder
    names, name_length = encoder.rows(NAMES, 8)
    times, time_length = encoder.rows(TIMES, 32)
    scene = Scene(*map(jnp.asarray, (names, name_length, times, time_length)))
    tokens, length = encoder.rows([QUESTION], encoder.sizes.question_width)
    gold = jax.device_put(words_of_text("Rex", encoder.sizes.gold_words))
    gold_row = (jnp.asarray(part[0]) for part in encoder.rows(["Rex"], encoder.sizes.gold_width))
    query = Query(jnp.asarray(tokens[0]), jnp.asarray(length[0]), gold, *gold_row)
    banks = [bank_of(tiny, texts, when) for texts, when in zip(MEMORIES, WHEN, strict=True)]
    agent, tools = tiny.pair.answerer, tiny.pair.tools
    retrieved = tuple(retrieve_memories(agent, tools, bank, query) for bank in banks)
    return scene, retrieved, query


def _lines(tiny):
    """Returns memory lines of both speakers, best first, and their scores."""
    query = tiny.pair.encoder.keys([QUESTION])[0]
    lines = []
    for texts, when in zip(MEMORIES, WHEN, strict=True):
        scores = tiny.pair.encoder.keys(texts) @ query
        order = np.argsort(-scores, kind="stable")
        lines.append([(f"- {TIMES[when[m]]}: {texts[m]}\n", float(scores[m])) for m in order])
    return lines


def _text(tiny, lines):
    blocks = [
        f"Memories of {name}:\n" + "".join(line for line, _ in kept)
        for name, kept in zip(NAMES, lines, strict=True)
    ]
    return "".join(blocks) + f"Question: {QUESTION}<|im_end|>\n<|im_start|>assistant\n"


def _shown_text(tiny, packed):
    whole = [*tiny.pair.answerer.template.instruction, *packed.tokens[: packed.length]]
    return tiny.decode(whole).rpartition("<|im_start|>user\n")[2]


def test_the_prompt_holds_both_speakers_memories_best_first_with_dates(tiny, shown):
    packed = answer_prompt(tiny.pair.answerer, *shown)
    lines = _lines(tiny)
    assert "Rex" in lines[0][0][0] and "Rex" in lines[1][0][0]
    assert _shown_text(tiny, packed) == _text(tiny, lines)
    assert int(packed.dropped) == 0 and not packed.overflow


def test_the_least_similar_of_both_speakers_go_first_and_the_question_never(tiny, shown):
    whole = int(answer_prompt(tiny.pair.answerer, *shown).length)
    lines = _lines(tiny)
    ranked = sorted((line for part in lines for line in part), key=lambda item: -item[1])
    assert len({score for _, score in ranked}) == len(ranked)
    for spared in (1, 3, 4):
        cost = sum(len(tiny.encode(line)) for line, _ in ranked[-spared:])
        agent = dataclasses.replace(tiny.pair.answerer, prompt_length=whole - cost)
        packed = answer_prompt(agent, *shown)
        kept = [[line for line in part if line in ranked[:-spared]] for part in lines]
        text = _shown_text(tiny, packed)
        assert int(packed.dropped) == spared and not packed.overflow
        for part in kept:
            for line, _ in part:
                assert line in text
        assert text.count("\n- ") == len(ranked) - spared
        assert text.endswith(_text(tiny, kept)[-len(QUESTION) - 40 :])


def test_a_question_that_does_not_fit_is_reported(tiny, shown):
    agent = dataclasses.replace(tiny.pair.answerer, prompt_length=10)
    packed = answer_prompt(agent, *shown)
    assert packed.overflow and int(packed.length) == 10 and int(packed.dropped) == 5


HAND_WRITTEN = [
    ("**Answer:** Rex", "Rex"),
    ("**Answer:** the Rex.", "Rex"),
    ("- Ana has a dog named Rex.\n**Answer:** rex\nmore", "Rex"),
    ("**Answer: Rex**", "Rex"),
    ("Answer: Rex and Max", "Rex"),
    ("<answer>Rex</answer> Answer: Max", "Rex"),
    ("**Answer:**\n\n- Rex", "Rex"),
    ("**Answer:** Max\nNo.\n**Answer:** Rex", "Rex"),
    ("<answer></answer> <answer>Rex</answer>", "Rex"),
    ("<think>**Answer:** Max</think>Rex", "Rex"),
    ("**Answer:** A", "A"),
    ("**Answer:** (a)", "A"),
    ("**Answer:** B", "A"),
    ("Rex", "Rex"),
    ("It is Rex.", "Rex"),
    ("", "Rex"),
    ("**Answer:**", "Rex"),
    ("**Answer:** the", "the"),
    ("**Answer:** 7 May 2023", "7 May, 2023"),
    ("**Answer:** 12 3", "123"),
    ("**Answer:** Chloé and Zoë", "chloé and zoë"),
    ("**Answer:** trout, olives", "trout olives"),
    ("**Answer:** olives trout", "trout olives"),
]


def _random_pairs(count):
    rng = random.Random(5)
    words = [
        "Rex",
        "the",
        "a",
        "An",
        "Lyon",
        "7",
        "May",
        "2023",
        "tea,",
        "green",
        "Chloé",
        "ß",
        "x-y",
    ]
    marks = ["**Answer:** ", "**Answer**: ", "Answer:", "<answer>", "", "\n", " ", "- "]

    def phrase(most):
        return " ".join(rng.choices(words, k=rng.randint(0, most)))

    pairs = []
    for _ in range(count):
        gold = phrase(3) or "Rex"
        said = rng.choice([gold, gold.lower(), gold + ".", phrase(3)])
        end = rng.choice(["", "</answer>", "**", "\nThat is all."])
        pairs.append((rng.choice(["", phrase(2) + "\n"]) + rng.choice(marks) + said + end, gold))
    return pairs


def test_the_verdict_is_that_of_the_metrics(tiny):
    pairs = HAND_WRITTEN + _random_pairs(CASES)
    width, words = 64, tiny.pair.answerer.answer_words
    rows = [row_of(tiny, text, width) for text, _ in pairs]
    tokens, length = (jnp.array(part) for part in zip(*rows, strict=True))
    gold = stack([words_of_text(text, words) for _, text in pairs])

    @jax.jit
    def judge(tools, tokens, length, gold):
        one = lambda *row: judge_answer(tiny.pair.answerer, tools, *row)  # noqa: E731
        return jax.vmap(one)(tokens, length, gold)

    verdict = judge(tiny.pair.tools, tokens, length, gold)
    found = [(extract_answer(text), wanted) for text, wanted in pairs]
    expected = [exact_match(answer, wanted) for (answer, _), wanted in found]
    assert 0.2 < np.mean(expected) < 0.8
    np.testing.assert_array_equal(verdict.exact_match, expected)
    expected = [word_f1(answer, wanted) for (answer, _), wanted in found]
    np.testing.assert_allclose(verdict.token_f1, expected, atol=1e-6)
    expected = [
        f" {normalize_text(wanted)} " in f" {normalize_text(answer)} "
        and normalize_text(wanted) != ""
        for (answer, _), wanted in found
    ]
    np.testing.assert_array_equal(verdict.contains, expected)
    expected = [rule != AnswerRule.WHOLE for (_, rule), _ in found]
    np.testing.assert_array_equal(verdict.labelled, expected)
