import functools
import os

import jax
import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.text.events import Event
from memr1_jax.text.grammar import advance, allowed, build_grammar, fewest_tokens, states_along
from memr1_jax.text.json_automaton import scanner_tables
from memr1_jax.text.json_reference import scan_operations_reference
from memr1_jax.text.json_scanner import scan_operations

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200
BATCH, LENGTH, MAX_ENTRIES = 100, 64, 12
SCHEMAS = ["compact", "full"]


@pytest.fixture(scope="module")
def grammars(byte_table, tokenizer):
    stop = tokenizer.token_to_id("<|end|>")
    return {name: build_grammar(name, byte_table, [stop], MAX_ENTRIES) for name in SCHEMAS}


_allowed, _advance, _along = jax.jit(allowed), jax.jit(advance), jax.jit(states_along)


@jax.jit
def _scan(tables, table, tokens, length):
    scan = functools.partial(scan_operations, max_operations=32, max_text=LENGTH, capacity=800)
    return jax.vmap(lambda t, n: scan(tables, table, t, n))(tokens, length)


def _walk(grammar, budget, shown, rng, stop):
    """Samples legal tokens at random; some walks favour a digit, a brace or the way to the end."""
    state = np.full(len(budget), int(grammar.start), np.int32)
    tokens = np.full((len(budget), LENGTH), stop, np.int32)
    states = np.zeros((len(budget), LENGTH), np.int32)
    ended = np.zeros(len(budget), bool)
    haste = rng.random(len(budget))
    for step in range(LENGTH):
        legal = np.asarray(_allowed(grammar, state, budget - step, shown))
        states[:, step] = state
        for i in np.flatnonzero(~ended):
            assert legal[i].any()
            choices = np.flatnonzero(legal[i])
            if rng.random() < 0.7 * haste[i]:
                distance = grammar.distance[state[i], choices].astype(int)
                choices = choices[distance <= distance.min() + rng.integers(0, 4)]
            tokens[i, step] = rng.choice(choices)
            ended[i] = tokens[i, step] == stop
        state = np.asarray(_advance(grammar, state, tokens[:, step], shown))
    return tokens, states, ended


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_walk_is_valid_and_ends(schema, grammars, byte_table, tokenizer):
    grammar, stop = grammars[schema], tokenizer.token_to_id("<|end|>")
    rng = np.random.default_rng(0)
    least = int(fewest_tokens(grammar))
    assert 2 < least < 20
    mix = np.zeros(4, int)
    for _ in range(CASES // BATCH):
        shown = rng.integers(0, MAX_ENTRIES + 1, BATCH).astype(np.int32)
        budget = rng.integers(least, LENGTH + 1, BATCH).astype(np.int32)
        budget[:10] = least
        tokens, states, ended = _walk(grammar, budget, shown, rng, stop)
        assert ended.all()
        length = (tokens != stop).sum(axis=1).astype(np.int32)
        assert (length + 1 <= budget).all()
        np.testing.assert_array_equal(_along(grammar, tokens, shown), states)
        result = jax.tree.map(np.asarray, _scan(scanner_tables(), byte_table, tokens, length))
        assert result.strict.all() and not result.overflow.any()
        assert not result.skipped.any() and not result.dropped.any()
        aimed = (result.event == Event.UPDATE) | (result.event == Event.DELETE)
        assert (~aimed | (result.id < shown[:, None])).all()
        for event in Event:
            mix[event] += (result.event == event).sum()
        mix[0] += result.none.sum()
        for row, size in zip(tokens, length, strict=True):
            spelled = b"".join(bytes(byte_table.bytes[t, : byte_table.length[t]]) for t in row)
            assert scan_operations_reference(spelled.decode(), 32).strict and size > 0
    assert (mix > 0).all(), mix  # all four events occur


@pytest.mark.parametrize("schema", SCHEMAS)
def test_one_token_fewer_than_the_least_is_refused(schema, grammars):
    grammar = grammars[schema]
    least = int(fewest_tokens(grammar))
    start = np.full(2, int(grammar.start), np.int32)
    legal = _allowed(grammar, start, np.array([least, least - 1]), np.array([3, 3]))
    assert legal[0].any() and not legal[1].any()


def _reads(grammar, tokenizer, byte_table, text, shown, remaining=200):
    """Counts how many bytes of the text are legal, spelled byte by byte."""
    state = np.int32(grammar.start)
    for place, byte in enumerate(text.encode()):
        token = byte_table.byte_token[byte]
        if not _allowed(grammar, state, np.int32(remaining), np.int32(shown))[token]:
            return place
        state = _advance(grammar, state, token, np.int32(shown))
    stop = tokenizer.token_to_id("<|end|>")
    ends = _allowed(grammar, state, np.int32(remaining), np.int32(shown))[stop]
    return "whole" if ends else "open"


ADD = '{"op": "ADD", "text": "x"}'
ENTRY = '{"memory": [{"id": "7", "text": "x", "event": "'


@pytest.mark.parametrize(
    ("schema", "text", "shown", "expected"),
    [
        ("compact", f"{ADD}\n{ADD}", 0, "whole"),
        ("compact", f"{ADD}\n", 0, "open"),
        ("compact", '{"op": "DELETE", "id": 0}', 0, len('{"op": "')),
        ("compact", '{"op": "DELETE", "id": 11}', 12, "whole"),
        ("compact", '{"op": "DELETE", "id": 11}', 11, len('{"op": "DELETE", "id": 1')),
        ("compact", '{"op": "DELETE", "id": 12}', 99, len('{"op": "DELETE", "id": 1')),
        ("compact", '{"op": "DELETE", "id": 01}', 9, len('{"op": "DELETE", "id": 0')),
        ("compact", '{"op": "UPDATE", "id": 2, "text": "caf\u00e9 \U0001f388 \\""}', 3, "whole"),
        ("compact", '{"op": "ADD", "text": ""}', 3, len('{"op": "ADD", "text": "')),
        ("compact", '{"op": "ADD", "text": "a\n"}', 3, len('{"op": "ADD", "text": "a')),
        ("compact", '{"op": "ADD", "text": "\\n"}', 3, len('{"op": "ADD", "text": "\\')),
        # White space alone is no text, in whatever width.
        ("compact", '{"op": "ADD", "text": " "}', 3, len('{"op": "ADD", "text": " ')),
        ("compact", '{"op": "ADD", "text": "\u3000 \u00a0"}', 3, 29),
        ("compact", '{"op": "ADD", "text": "\u3000 \u00e9"}', 3, "whole"),
        ("compact", '{"op": "ADD", "text": "\u2026"}', 3, "whole"),
        # Nothing before the end of reasoning is read, so that no text may hold it.
        (
            "compact",
            '{"op": "ADD", "text": "a </think>"}',
            3,
            len('{"op": "ADD", "text": "a </think'),
        ),
        ("compact", '{"op": "ADD", "text": "<</thin</think>"}', 3, 37),
        ("compact", '{"op": "ADD", "text": "</think"}', 3, "whole"),
        ("compact", '{"op": "ADD", "text": "<\\/think>"}', 3, "whole"),
        ("full", '{"memory": []}', 0, "whole"),
        ("full", ENTRY + 'ADD"}, {"id": "0", "text": "y", "event": "NONE"}]}', 0, "whole"),
        ("full", ENTRY + 'UPDATE"}]}', 8, "whole"),
        ("full", ENTRY + 'UPDATE"}]}', 7, len(ENTRY)),
        ("full", ENTRY + 'DELETE"}]}', 7, len(ENTRY)),
    ],
)
def test_golden_spellings(schema, text, shown, expected, grammars, tokenizer, byte_table):
    assert _reads(grammars[schema], tokenizer, byte_table, text, shown) == expected


def test_real_tokens_take_the_canonical_spelling(grammars, tokenizer):
    stop = tokenizer.token_to_id("<|end|>")
    texts = {
        "compact": '{"op": "UPDATE", "id": 2, "text": "Zoë likes tea"}\n{"op": "NONE"}',
        "full": '{"memory": [{"id": "2", "text": "Zoë likes tea", "event": "DELETE"}]}',
    }
    for schema, text in texts.items():
        tokens = np.array([*tokenizer.encode(text).ids, stop], np.int32)
        states = _along(grammars[schema], tokens, np.int32(3))
        legal = _allowed(grammars[schema], states, np.arange(len(tokens), 0, -1), 3)
        assert np.asarray(legal)[np.arange(len(tokens)), tokens].all()


def test_bad_requests_are_refused(byte_table):
    with pytest.raises(UserError, match="no schema 'yaml'"):
        build_grammar("yaml", byte_table, [0], 4)
    with pytest.raises(UserError, match="max_entries is 300"):
        build_grammar("full", byte_table, [0], 300)
    with pytest.raises(UserError, match="cannot spell"):
        build_grammar("full", byte_table, [], 4)
