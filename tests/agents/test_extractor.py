"""The fact extractor: its prompts, how facts are written and read, and one compiled call."""

import jax
import numpy as np
import pytest

from memr1_jax.agents.extractor import (
    FactExtractor,
    TurnText,
    make_extract,
    prompt_tokens,
    read_facts,
    write_facts,
)
from memr1_jax.agents.templates import load_template


@pytest.mark.parametrize("facts", [[], ["Ana lives in Oslo."], ["a - b", 'say "c"', "NONE"]])
def test_what_is_written_is_read_back(facts):
    assert read_facts(write_facts(facts)) == facts


@pytest.mark.parametrize(
    "response, facts",
    [
        ("Facts:\n- a\n\n  - b \nbye", ["a", "b"]),
        ("NONE", []),
        ("- ", None),
        ("- a\u2028- b", ["a\u2028- b"]),  # only a line feed ends a line
        ("Ana lives in Oslo.", None),
        ("", None),
    ],
)
def test_only_lines_with_a_dash_are_facts(response, facts):
    assert read_facts(response) == facts


def _turns(tiny, *turns):
    rows = [tiny.pair.encoder.rows(column, 24) for column in zip(*turns, strict=True)]
    return TurnText(*rows)


def _extractor(tiny, name):
    template = load_template(name, tiny.model.tokenizer, role="facts")
    return FactExtractor(template, 96, 6, tiny.model.stop_tokens, turn_width=24)


@pytest.mark.parametrize("name", ["compact", "compact_nano"])
def test_the_prompt_shows_the_turn(tiny, name):
    extractor = _extractor(tiny, name)
    tokens, length = prompt_tokens(extractor, _turns(tiny, ("Ana", "9 May 2023", "I moved.")))
    shown = [*extractor.template.instruction, *np.asarray(tokens[0, : length[0]]).tolist()]
    text = tiny.decode(shown)
    assert "Turn of Ana: I moved." in text
    assert ("9 May 2023" in text) == (name == "compact")


def test_turns_are_read_together(tiny):
    extractor = _extractor(tiny, "compact_nano")
    turns = _turns(tiny, ("Ana", "", "I moved."), ("Ben", "", "Good for you!"))
    extract = make_extract(extractor, tiny.model.decoder)
    both = extract(tiny.model.params, turns, np.array([True, True]))
    one = extract(tiny.model.params, turns, np.array([True, False]))
    assert both.tokens.shape == (2, 6)
    np.testing.assert_array_equal(both.tokens[0], one.tokens[0])
    assert jax.tree.leaves(one)[0].shape[0] == 2 and int(one.length[1]) == 0
