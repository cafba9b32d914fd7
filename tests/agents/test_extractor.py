"""The fact extractor: its prompts, how facts are written and read, and one compiled call."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny_model import row_of

import memr1_jax.agents.extractor as extractor_module
from memr1_jax.agents.extractor import (
    FactExtractor,
    TurnText,
    create_extractor,
    make_extract,
    prompt_tokens,
    read_facts,
    with_extracted_facts,
    without_notes,
    write_facts,
)
from memr1_jax.agents.templates import load_template
from memr1_jax.errors import UserError


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


def test_what_a_model_extracts_takes_the_place_of_the_notes(tiny, monkeypatch):
    """Checks batches, speakers and places, with a model that repeats its prompt."""
    batches = []

    def echo(extractor, decoder):
        def extract(params, turns, active):
            batches.append(int(np.sum(active)))
            rows = zip(*map(np.asarray, turns.turn), strict=True)
            texts = [tiny.decode(row[:length]).strip() for row, length in rows]
            facts = [f"- {t}\n- {t.split()[0]}" if len(t) > 30 else "?" for t in texts]
            tokens, lengths = zip(*(row_of(tiny, text, 200) for text in facts), strict=True)
            return SimpleNamespace(tokens=np.stack(tokens), length=np.array(lengths))

        return extract

    monkeypatch.setattr(extractor_module, "make_extract", echo)
    extractor = create_extractor(tiny.model, "compact_nano", 640, 48, turn_width=96)
    made, counts = with_extracted_facts(
        extractor, tiny.model, tiny.model.params, tiny.pair.encoder, tiny.conversations
    )
    turns = [turn for c in tiny.conversations for turn in c.turns]
    assert sum(batches) == counts["turns"] == len(turns)
    long = [turn for turn in turns if len(turn.text) > 30]
    assert counts["unread"] == len(turns) - len(long) and counts["facts"] == 2 * len(long)
    facts = [fact for c in made for fact in c.facts]
    assert [(f.speaker, f.text, f.sources) for f in facts[::2]] == [
        (turn.speaker, turn.text, (turn.dia_id,)) for turn in long
    ]
    assert not any(c.operations for c in made)
    assert [c.questions for c in made] == [c.questions for c in tiny.conversations]


def test_turns_stand_for_notes(tiny):
    (made,) = without_notes(tiny.conversations)
    assert [f.text for f in made.facts] == [f"{t.speaker}: {t.text}" for t in made.turns]
    assert not made.operations


def test_a_prompt_without_room_for_a_turn_is_told(tiny):
    with pytest.raises(UserError, match="--max_prompt_length=40 is too short"):
        create_extractor(tiny.model, "compact_nano", 40, 48, turn_width=64)


def test_turns_are_read_together(tiny):
    extractor = _extractor(tiny, "compact_nano")
    turns = _turns(tiny, ("Ana", "", "I moved."), ("Ben", "", "Good for you!"))
    extract = make_extract(extractor, tiny.model.decoder)
    both = extract(tiny.model.params, turns, np.array([True, True]))
    one = extract(tiny.model.params, turns, np.array([True, False]))
    assert both.tokens.shape == (2, 6)
    np.testing.assert_array_equal(both.tokens[0], one.tokens[0])
    assert jax.tree.leaves(one)[0].shape[0] == 2 and int(one.length[1]) == 0
