"""The judge against plain readings: of the answer's tokens, of its prompt, and of its odds."""

import dataclasses
import functools
import importlib.resources
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_model import END, row_of

from memr1_jax.agents.judge import Judge, answer_block, create_judge, judge_log_odds, judge_prompt
from memr1_jax.agents.templates import load_template
from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.text.answer_span import answer_span, extract_answer

WIDTH = 160
PROMPTS = ("judge_compact", "judge_full")
ROWS = [
    ("When did Ana leave?", "3 May 2023", "She left on May 3rd, 2023, in the morning"),
    ("Where does Tom live?", "Lyon", "Oslo"),
    ("What does Zoë like?", "crème brûlée", "crème brûlée 🍮"),
    ("Why?", "nobody knows", ""),
]


@pytest.fixture(scope="module", params=PROMPTS)
def judge(request, tiny):
    """Returns a judge on the tiny model; other words stand in for yes, which is no token."""
    template = load_template(request.param, tiny.model.tokenizer)
    return Judge(template, tiny.model.decoder, yes=(79, 379), no=(80, 300, 649), answer_width=24)


def _blocks(tiny, texts, width):
    tokens, length = tiny.pair.encoder.rows(texts, width)
    length = np.where([bool(text) for text in texts], length, 0).astype(np.int32)
    return Block(jnp.asarray(tokens), jnp.asarray(length))


def _texts(tiny, rows):
    return tuple(_blocks(tiny, texts, 32) for texts in zip(*rows, strict=True))


def _bytes(tiny, tokens):
    """Returns the bytes that tokens spell, read off the table on the host."""
    table = tiny.pair.tools.byte_table
    spelled, size = np.asarray(table.bytes), np.asarray(table.length)
    return [bytes(spelled[token, : size[token]]) for token in tokens]


@pytest.fixture(scope="module")
def read(tiny):
    """Returns `answer_block` of one response, as a list of tokens."""
    compiled = jax.jit(answer_block)

    def read(tokens):
        row = np.pad(np.array(tokens, np.int32), (0, WIDTH - len(tokens)))
        block = compiled(tiny.pair.tools, jnp.asarray(row), jnp.int32(len(tokens)))
        assert not np.asarray(block.tokens)[int(block.length) :].any()
        return np.asarray(block.tokens)[: int(block.length)].tolist()

    return read


@jax.jit
def _span(text, length):
    return answer_span(text, length)[:2]


PIECES = ("**Answer:** ", "Answer:", "<answer>", "</answer>", "**", "\n", " ", "crème", "🍮", "京")


@settings(max_examples=200, deadline=None)
@example(pieces=["**Answer:** ", "crème", " ", "🍮🍮"], cut=0)
@example(pieces=["**Answer:** ", "crème", " ", "🍮🍮"], cut=3)
@example(pieces=["He left. ", "Answer:", " 3 May 2023", "\n", "That is all."], cut=0)
@example(pieces=["Answer:", "\n", "京"], cut=0)
@example(pieces=[], cut=0)
@given(
    pieces=st.lists(st.sampled_from(PIECES) | st.text("abcé ß京🍮7-'", max_size=5), max_size=8),
    cut=st.integers(0, 4),
)
def test_the_tokens_of_an_answer_are_those_that_its_bytes_touch(tiny, read, pieces, cut):
    tokens = tiny.encode("".join(pieces))
    tokens = tokens[: max(0, len(tokens) - cut)]
    spelled = _bytes(tiny, tokens)
    whole = b"".join(spelled)
    padded = np.frombuffer(whole.ljust(8 * WIDTH, b"\0"), np.uint8)
    start, end = map(int, _span(jnp.asarray(padded), jnp.int32(len(whole))))
    found = whole[start:end].decode(errors="replace")
    assert found == extract_answer(whole.decode(errors="replace"))[0]

    touching, after = [], 0
    for token, text in zip(tokens, spelled, strict=True):
        before, after = after, after + len(text)
        if max(before, start) < min(after, end):
            touching.append(token)
    space = int(np.asarray(tiny.pair.tools.byte_table.byte_token)[ord(" ")])
    breaks = [b"\n" in text for text in _bytes(tiny, touching)]
    one_line = [space if b else token for token, b in zip(touching, breaks, strict=True)]
    assert read(tokens) == one_line
    assert found in b"".join(_bytes(tiny, touching)).decode(errors="replace")


def test_special_tokens_in_an_answer_do_not_reach_the_judge(tiny, read):
    special = tiny.model.tokenizer.convert_tokens_to_ids(["<|im_start|>", END])
    plain = tiny.encode("**Answer:** in Lyon")
    assert read(plain) == plain[-len(tiny.encode(" in Lyon")) :] == tiny.encode(" in Lyon")
    hacked = [*plain[:-1], *special, plain[-1], special[1]]
    assert read(hacked) == read(plain)


def test_the_prompt_is_the_file_with_its_slots_filled(tiny, judge):
    for row in ROWS:
        block = jax.tree.map(np.asarray, judge_prompt(judge, tiny.pair.tools, *_texts(tiny, [row])))
        prompt = tiny.decode([*judge.template.instruction, *block.tokens[0, : block.length[0]]])
        slots = dict(zip(("question", "gold", "answer"), (" " + text for text in row), strict=True))
        slots["answer"] = slots["answer"] if row[2] else " (nothing)\n"
        assert prompt == _expected(tiny, judge.template.name, slots)


def _expected(tiny, name, slots):
    """Returns the prompt by plain replacement in the file."""
    folder = importlib.resources.files("memr1_jax.agents") / "prompts"
    source = (folder / f"{name}.txt").read_text(encoding="utf-8")
    pieces = re.split(r"^\[(system|user|assistant|empty answer)\]\n", source, flags=re.MULTILINE)
    messages = [
        {"role": role, "content": text.removesuffix("\n")}
        for role, text in zip(pieces[1::2], pieces[2::2], strict=True)
        if not role.startswith("empty")
    ]
    for slot, text in slots.items():
        messages[-1]["content"] = messages[-1]["content"].replace("{" + slot + "}", text)
    return tiny.model.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )


def test_an_answer_that_began_after_a_mark_reads_as_after_a_colon(tiny, judge):
    tools = tiny.pair.tools
    question, gold, spaced = _texts(tiny, [("Why?", "no", "no")])
    tokens, length = row_of(tiny, "no", 32, stop=False)
    bare = Block(jnp.asarray(tokens)[None], jnp.array([length]))
    one, two = (judge_prompt(judge, tools, question, gold, answer) for answer in (spaced, bare))
    assert spaced.length[0] == 1 and bare.length[0] == 2  # the tokenizer has " no" but not "no"
    width = int(two.length[0])
    assert tiny.decode(two.tokens[0, :width]) == tiny.decode(one.tokens[0, : int(one.length[0])])


def test_a_long_answer_is_cut_and_nothing_else(tiny, judge):
    narrow = dataclasses.replace(judge, answer_width=3)
    question, gold, answer = _texts(tiny, ROWS[:1])
    prompt = judge_prompt(narrow, tiny.pair.tools, question, gold, answer)
    short = Block(answer.tokens, jnp.minimum(answer.length, 3))
    expected = judge_prompt(judge, tiny.pair.tools, question, gold, short)
    width = int(expected.length[0])
    assert (
        int(prompt.length[0])
        == width
        < judge_prompt(judge, tiny.pair.tools, question, gold, answer).length[0]
    )
    np.testing.assert_array_equal(prompt.tokens[0, :width], expected.tokens[0, :width])


def _plain_log_odds(tiny, judge, row):
    """Returns log-odds of a row of texts, from all its tokens as a block and its whole softmax."""
    slots = dict(zip(("question", "gold", "answer"), map(_ids(tiny), row), strict=True))
    tokens = list(judge.template.instruction)
    for part in judge.template.parts:
        tokens += (slots[part] or dict(judge.template.empty)[part]) if part in slots else part
    block = Block(
        jnp.asarray(np.pad(tokens, (0, 800 - len(tokens))))[None], jnp.array([len(tokens)])
    )
    probability = np.exp(_log_softmax(tiny.model.decoder, tiny.model.params, block))
    return math.log(probability[list(judge.yes)].sum() / probability[list(judge.no)].sum())


def _ids(tiny):
    return lambda text: tiny.pair.encoder.tokenize(text) if text else []


@functools.partial(jax.jit, static_argnums=0)
def _log_softmax(decoder, params, block):
    (hidden,) = decoder.apply({"params": params}, (block,))
    logits = decoder.apply(
        {"params": params}, hidden[0, block.length[0] - 1], method=Decoder.logits
    )
    return jax.nn.log_softmax(logits)


@functools.partial(jax.jit, static_argnums=0)
def _log_odds(judge, params, tools, question, gold, answer):
    return judge_log_odds(judge, params, tools, question, gold, answer)


def test_the_log_odds_are_those_of_the_plain_prompt(tiny, judge):
    found = _log_odds(judge, tiny.model.params, tiny.pair.tools, *_texts(tiny, ROWS))
    expected = [_plain_log_odds(tiny, judge, row) for row in ROWS]
    assert np.ptp(expected) > 1e-2
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_row_does_not_depend_on_the_others_and_questions_are_shared(tiny, judge):
    params, tools = tiny.model.params, tiny.pair.tools
    question, gold, answer = _texts(tiny, ROWS)
    whole = _log_odds(judge, params, tools, question, gold, answer)
    alone = [_log_odds(judge, params, tools, *_texts(tiny, [row])) for row in ROWS]
    np.testing.assert_allclose(whole, np.concatenate(alone), atol=1e-5)

    # Every answer to every question: [B, 1] and [1, G] make [B, G].
    rows, columns = (lambda x: x[:, None]), (lambda x: jnp.broadcast_to(x, (4, *x.shape)))
    shared = jax.tree.map(rows, (question, gold))
    grid = _log_odds(judge, params, tools, *shared, jax.tree.map(columns, answer))
    assert grid.shape == (4, 4)
    np.testing.assert_allclose(np.diag(grid), whole, atol=1e-5)
    mixed = (*ROWS[2][:2], ROWS[1][2])
    np.testing.assert_allclose(grid[2, 1], _plain_log_odds(tiny, judge, mixed), atol=1e-4)


def test_rows_of_padding_give_a_number(tiny, judge):
    nothing = Block(jnp.zeros((2, 32), jnp.int32), jnp.zeros(2, jnp.int32))
    odds = _log_odds(judge, tiny.model.params, tiny.pair.tools, nothing, nothing, nothing)
    assert np.isfinite(odds).all()


class _Words:
    """A tokenizer of given words."""

    def __init__(self, *words):
        self.words = words

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [self.words.index(text)] if text in self.words else [len(self.words)] * len(text)


def test_all_spellings_that_are_one_token_count(tiny, judge):
    words = _Words("no", " Yes", "YES", "maybe", " no", "yes", "No")
    made = create_judge(judge.template, tiny.model.decoder, words, answer_width=7)
    assert (made.yes, made.no, made.answer_width) == ((1, 2, 5), (0, 4, 6), 7)


def test_a_tokenizer_without_yes_is_refused_in_a_sentence(tiny, judge):
    for words, missing in ((_Words("no"), "yes"), (_Words(" Yes"), "no")):
        with pytest.raises(UserError, match=f"no single token for the word '{missing}'"):
            create_judge(judge.template, tiny.model.decoder, words)
