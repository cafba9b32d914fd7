import os

import jax
import numpy as np
import pytest
from fuzz.responses import PIECES
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1_jax.text.answer_span import AnswerRule, answer_span, extract_answer
from memr1_jax.text.byte_table import tokens_to_bytes
from memr1_jax.text.match import exact_match
from memr1_jax.text.normalize import unicode_tables, words_of_bytes, words_of_text

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200
BATCH, CAPACITY = 20, 96

_run = jax.jit(jax.vmap(answer_span))


def _device(texts):
    rows = np.full((len(texts), CAPACITY), ord("*"), np.uint8)  # what follows must not count
    items = [text.encode() for text in texts]
    for i, item in enumerate(items):
        rows[i, : len(item)] = np.frombuffer(item, np.uint8)
    spans = _run(rows, np.array([len(item) for item in items], np.int32))
    return [
        (item[s:e].decode(), AnswerRule(int(rule)))
        for item, s, e, rule in zip(items, *map(np.asarray, spans), strict=True)
    ]


GOLDEN = [
    ("so <Answer>\n 7 May </ANSWER> **Answer:** no", "7 May", AnswerRule.TAG),
    ("<answer>open\n**Answer:** 7 May 2023\nmore", "7 May 2023", AnswerRule.BOLD_LABEL),
    ("Selected: x\n**Answer**: *Paris*", "Paris", AnswerRule.BOLD_LABEL),
    ("**Answer: Paris** as told", "Paris", AnswerRule.BOLD_LINE),
    ("**Answer: open\n**Answer: Rome** x", "Rome", AnswerRule.BOLD_LINE),
    ("Final Answer: Paris \nnext", "Paris", AnswerRule.LABEL),
    # Nothing after the label: the first line below that is not empty, without a bullet.
    ("**Answer:**\nfound\nmore", "found", AnswerRule.BOLD_LABEL),
    ("**Answer**:  \n\n- Lima\n- Quito", "Lima", AnswerRule.BOLD_LABEL),
    ("Answer:\n---\n \n• **Lima**", "Lima", AnswerRule.LABEL),
    ("Answer:\n• - +Lima\n", "+Lima", AnswerRule.LABEL),
    ("Answer:\n-\n• **Lima**", "Lima", AnswerRule.LABEL),
    ("Answer:\n-5 degrees", "-5 degrees", AnswerRule.LABEL),
    ("**Answer: **\n+ Lima", "Lima", AnswerRule.LABEL),
    ("**Answer:**\n**\n", "", AnswerRule.BOLD_LABEL),
    # The last label wins, in every rule.
    ("**Answer:** Bern\nNo.\n**Answer:** Lima", "Lima", AnswerRule.BOLD_LABEL),
    ("**Answer:** Bern **Answer**:\nLima", "Lima", AnswerRule.BOLD_LABEL),
    ("**Answer: Bern** no, **Answer: Lima**", "Lima", AnswerRule.BOLD_LINE),
    ("Answer: Bern\nAnswer: Lima", "Lima", AnswerRule.LABEL),
    ("<answer></answer> <ANSWER>Lima</answer>", "Lima", AnswerRule.TAG),
    ("<answer>Bern<answer>Lima</answer></answer><answer>", "Lima", AnswerRule.TAG),
    # Reasoning is not read.
    ("<think>**Answer:** Bern</think>\nLima", "Lima", AnswerRule.WHOLE),
    ("Answer: a</think>**Answer:** b</think> Answer: Lima", "Lima", AnswerRule.LABEL),
    ("<think>**Answer:** Bern", "", AnswerRule.WHOLE),
    ("Answer: <think>", "<think>", AnswerRule.LABEL),
    (" *just* words* ", "just* words", AnswerRule.WHOLE),
    ("", "", AnswerRule.WHOLE),
    ("** \n", "", AnswerRule.WHOLE),
]


@pytest.mark.parametrize(("text", "answer", "rule"), GOLDEN)
def test_golden_answers(text, answer, rule):
    assert extract_answer(text) == (answer, rule)
    assert _device([text]) == [(answer, rule)]


TEXT = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)


@settings(max_examples=CASES // BATCH, deadline=None)
@given(st.lists(TEXT, min_size=BATCH, max_size=BATCH))
def test_device_equals_python(texts):
    texts = [text.encode()[:CAPACITY].decode("utf-8", "ignore") for text in texts]
    assert _device(texts) == [extract_answer(text) for text in texts]


def test_from_sampled_tokens_to_the_reward(tokenizer, byte_table):
    texts = ["Selected: x\n**Answer:** The 7 May, 2023.", "**Answer:** 8 May 2023", ""]
    rows = [tokenizer.encode(text).ids for text in texts]
    tokens = np.zeros((3, CAPACITY), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    gold = words_of_text("7 May 2023", 8)

    @jax.jit
    def reward(tables, table, tokens, length):
        text = tokens_to_bytes(table, tokens, length, CAPACITY)
        start, end, _ = answer_span(text.bytes, text.length)
        return exact_match(words_of_bytes(tables, text.bytes, start, end, 8), gold)

    lengths = np.array([len(row) for row in rows])
    rewards = jax.vmap(reward, (None, None, 0, 0))(unicode_tables(), byte_table, tokens, lengths)
    assert rewards.tolist() == [1.0, 0.0, 0.0]
