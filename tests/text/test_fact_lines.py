"""Facts read on the device against those read in plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import make_tiny

from memr1_jax.agents.extractor import read_facts
from memr1_jax.text.fact_lines import scan_facts

FACTS, WIDTH, LENGTH = 3, 44, 48


@functools.cache
def _reader():
    table = make_tiny().pair.tools.byte_table
    read = functools.partial(scan_facts, facts=FACTS, width=WIDTH, capacity=LENGTH * 8)
    return jax.jit(lambda tokens, length: read(table, tokens, length))


def _read(text):
    tiny = make_tiny()
    tokens = tiny.encode(text)[:LENGTH]
    padded = np.pad(np.array(tokens, np.int32), (0, LENGTH - len(tokens)))
    found, length = map(np.asarray, _reader()(jnp.asarray(padded), len(tokens)))
    texts = [tiny.decode(row[:n]) for row, n in zip(found, length, strict=True) if n]
    return texts, tiny.decode(tokens), found, length


@pytest.mark.parametrize(
    "text",
    [
        "- Ana lives in Oslo.",
        "- Ana lives in Oslo.\n- Ben has a cat.\n",
        "NONE",
        "",
        "Facts:\n- a\n\n  - b \nbye",
        "-no\n- \n-\n--\n - yes",
        "- one\n- two\n- three\n- four",
        "- Zoë naïve 日本\n- ok",
        "- a - b\n-  two  spaces ",
    ],
)
def test_lines_with_a_dash_are_facts(text):
    texts, whole, found, length = _read(text)
    wanted = [" ".join(fact.split()) for fact in read_facts(whole) or []][:FACTS]
    assert [text.strip() for text in texts] == wanted
    assert all(text.startswith(" ") for text in texts)
    assert (found[np.arange(WIDTH) >= length[:, None]] == 0).all()


@settings(max_examples=150)
@given(st.text("-- \n\nab.", max_size=40))
def test_any_text_is_read_as_in_python(text):
    texts, whole, _, _ = _read(text)
    wanted = [" ".join(fact.split()) for fact in read_facts(whole) or []][:FACTS]
    assert [text.strip() for text in texts] == wanted


def test_words_are_tokens_as_in_running_text():
    tiny = make_tiny()
    _, _, found, length = _read("- Ana moved to Bergen.\n- Ben")
    assert found[0, : length[0]].tolist()[:3] == tiny.encode(" Ana moved to Bergen.")[:3]


def test_long_facts_are_cut():
    _, _, _, length = _read("- " + "a b c d e f g h i j k l " * 4)
    assert length[0] == WIDTH
