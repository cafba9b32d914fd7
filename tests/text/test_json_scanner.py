import functools
import os
import random

import jax
import numpy as np
import pytest
from fuzz.responses import document, random_split

from memr1_jax.text.byte_table import begins_character, cut_to_width
from memr1_jax.text.events import Event
from memr1_jax.text.json_automaton import scanner_tables
from memr1_jax.text.json_reference import scan_operations_reference
from memr1_jax.text.json_scanner import scan_operations

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200
BATCH, LENGTH, CAPACITY, MAX_OPERATIONS, MAX_TEXT = 100, 448, 320, 4, 96
ADD, UPDATE, DELETE = Event.ADD, Event.UPDATE, Event.DELETE


@functools.partial(jax.jit, static_argnames="salvage")
def _run(tables, table, tokens, length, salvage=False):
    scan = functools.partial(
        scan_operations,
        max_operations=MAX_OPERATIONS,
        max_text=MAX_TEXT,
        capacity=CAPACITY,
        salvage=salvage,
    )
    return jax.vmap(lambda t, n: scan(tables, table, t, n))(tokens, length)


def _scan(rows, byte_table, salvage=False):
    """Scans rows of tokens in batches of one fixed shape; results as one list of NumPy trees."""
    results = []
    for start in range(0, len(rows), BATCH):
        tokens = np.full((BATCH, LENGTH), 7, np.int32)
        length = np.zeros(BATCH, np.int32)
        for i, row in enumerate(rows[start : start + BATCH]):
            tokens[i, : len(row)] = row
            length[i] = len(row)
        batch = jax.tree.map(
            np.asarray, _run(scanner_tables(), byte_table, tokens, length, salvage)
        )
        results += [
            jax.tree.map(lambda x, i=i: x[i], batch) for i in range(len(rows[start:][:BATCH]))
        ]
    return results


def _spell(byte_table, tokens):
    return b"".join(bytes(byte_table.bytes[t, : byte_table.length[t]]) for t in tokens)


def _operations(result, byte_table):
    texts = [
        _spell(byte_table, row[:n]) for row, n in zip(result.tokens, result.length, strict=True)
    ]
    rows = zip(result.event, result.id, texts, strict=True)
    return [
        (Event(event), int(number), text.decode("utf-8", "replace"))
        for event, number, text in list(rows)[: result.count]
    ]


def _check(data, result, byte_table, salvage):
    expected = scan_operations_reference(data, MAX_OPERATIONS, salvage)
    assert _operations(result, byte_table) == expected.operations, data
    for name in ("valid", "strict", "none", "skipped", "dropped", "salvaged"):
        assert getattr(result, name) == getattr(expected, name), (name, data, salvage)
    assert result.unspelled == 0 and not result.overflow


GOLDEN = [
    ('{"memory": []}', [], (1, 1, 0, 0, 0)),
    (
        ' {"memory": [{"id": "0", "text": "a, \\"b\\" }]", "event": "ADD"},'
        ' {"id": "12", "event": "delete"}]}\n',
        [(ADD, 0, 'a, "b" }]'), (DELETE, 12, "")],
        (1, 1, 0, 0, 0),
    ),
    (
        '```json\n{"memory": [{"event": "UPDATE", "id": 3, "old_memory": "x", "text": "y"}]}\n```',
        [(UPDATE, 3, "y")],
        (1, 0, 0, 0, 0),
    ),
    ('{"memory": [{"id": "0", "text": "a", "event": "ADD"}', [], (0, 0, 0, 0, 0)),
    ('{"memory": [{"id": "0", "text": "a", "event": "ADD"}]', [], (0, 0, 0, 0, 0)),
    (
        '{"op": "ADD", "text": "caf\\u00e9 \\ud83c\\udf88 \\ud83c"}, {"op": "noop"}\n{"op": "UP',
        [(ADD, -1, "café 🎈 \ufffd")],
        (1, 0, 1, 0, 0),
    ),
    ('{"\\u006fp": "\\u0041dD", "text": "x"}', [(ADD, -1, "x")], (1, 1, 0, 0, 0)),
    ('{"op": "DELETE", "id": "\\u0031\\u0032"}', [(DELETE, 12, "")], (1, 1, 0, 0, 0)),
    (
        '{"op": "FORGET", "id": 1} {"op": "ADD", "text": ""} {"op": "UPDATE", "text": "x"}'
        '{"op": "DELETE", "id": 1.0} {"op": "DELETE", "id": -1} {"op": "DELETE", "id": null}'
        '{"op": "DELETE", "id": 12345678901} {"op": 3} {} {"op": "DELETE", "id": "x1"}',
        [],
        (1, 1, 0, 10, 0),
    ),
    (
        '{"op": "ADD", "text": "x", "text": null} {"op": "ADD", "event": "DELETE", "id": 7, "id":8}'
        '{"text": 1, "text": "z", "op": "?", "op": "ADD"}',
        [(DELETE, 8, ""), (ADD, -1, "z")],
        (1, 1, 0, 1, 0),
    ),
    ('{"op": "DELETE", "id": 1}' * 6, [(DELETE, 1, "")] * 4, (1, 1, 0, 0, 2)),
    ('{"memory": [{"op": "DELETE", "id": 1}], "memory": []}', [], (1, 1, 0, 0, 0)),
    ('{"op": "ADD", "text": "a", "memory": [{"op": "NONE"}]}', [], (1, 1, 1, 0, 0)),
    ('{"op": "ADD", "text": "a", "x": [1]}', [], (0, 0, 0, 0, 0)),
    ('{"op": "ADD", "text": "a", "x": NaN}', [], (0, 0, 0, 0, 0)),
    ('{"op": "ADD", "text": "a\nb"}', [], (0, 0, 0, 0, 0)),
    (
        '{"op": "ADD", "text": "1:\\na\\r\\n\\u2028 b\u3000\u00a0c \\t"}'
        '{"op": "ADD", "text": "\u2029 \\n x"}'
        '{"op": "ADD", "text": "\\n \u0085"}',
        [(ADD, -1, "1: a b c"), (ADD, -1, " x")],
        (1, 1, 0, 1, 0),
    ),
    ('{"op": "ADD", "text": "a"} ok {"op": "NONE"}', [(ADD, -1, "a")], (1, 0, 0, 0, 0)),
    # A brace that no key and its colon follow is prose.
    (
        'Using {ids} and {"names"} as {}:\n{"op": "ADD", "text": "a"}',
        [(ADD, -1, "a")],
        (1, 0, 0, 0, 0),
    ),
    ('{{"op": "ADD", "text": "a"}}', [(ADD, -1, "a")], (1, 0, 0, 0, 0)),
    ('{ids} {"memory": [{"op": "DELETE", "id": 1}]}', [(DELETE, 1, "")], (1, 0, 0, 0, 0)),
    # An object that breaks off before any other may be prose too, to the end of its line.
    ('{"op": ..., "id": ...}\n{"op": "DELETE", "id": 1}', [(DELETE, 1, "")], (1, 0, 0, 0, 0)),
    (
        '{"memory": ...}\n{"memory": [{"op": "DELETE", "id": 1}]}',
        [(DELETE, 1, "")],
        (1, 0, 0, 0, 0),
    ),
    ('{"op": "ADD", "text": "say "{"op": "DELETE", "id": 1}" now"}', [], (0, 0, 0, 0, 0)),
    # What was thought is not read.
    (
        '<think>{"op": "DELETE", "id": 1}? No.</think>\n{"op": "ADD", "text": "a"}',
        [(ADD, -1, "a")],
        (1, 1, 0, 0, 0),
    ),
    ('{"op": "ADD", "text": "a"}</think>{"op": "NONE"}', [], (1, 1, 1, 0, 0)),
    (' <think>maybe {"op": "DELETE", "id": 1}', [], (0, 0, 0, 0, 0)),
    ('{"op": "ADD", "text": "<think> a"}', [(ADD, -1, "<think> a")], (1, 1, 0, 0, 0)),
    # White space, in whatever spelling, is no text.
    (
        '{"op": "ADD", "text": "  "}{"op": "UPDATE", "id": 1, "text": "\\t\\u3000 \u00a0\u2003"}'
        '{"op": "ADD", "text": " \\u00e9"}',
        [(ADD, -1, " é")],
        (1, 1, 0, 2, 0),
    ),
    ("", [], (0, 0, 0, 0, 0)),
    ("no JSON", [], (0, 0, 0, 0, 0)),
]


@pytest.mark.parametrize(("text", "operations", "flags"), GOLDEN)
def test_reference_golden(text, operations, flags):
    expected = scan_operations_reference(text, MAX_OPERATIONS)
    assert expected.operations == operations
    assert tuple(map(int, expected[1:6])) == flags


def test_scanner_golden(tokenizer, byte_table):
    rows = [tokenizer.encode(text).ids for text, _, _ in GOLDEN]
    for (text, operations, flags), result in zip(GOLDEN, _scan(rows, byte_table), strict=True):
        assert _operations(result, byte_table) == operations, text
        names = ("valid", "strict", "none", "skipped", "dropped")
        assert tuple(int(getattr(result, name)) for name in names) == flags, text


KEPT = {  # with salvage and without
    '{"memory":[{"id":"3","text":"a","event":"ADD"},{"id":"4","text":"b': (["a"], None),
    '{"memory":[{"text":"a","event":"ADD"},{"text":["b"],"event":"ADD"}]}': (["a"], None),
    '{"memory":[{"text":"a","event":"ADD"},{"text":"b\nc","event":"ADD"}]}': (["a"], None),
    '{"memory":[{"text":"a","event":"ADD"},]}': (["a"], None),
    '{"memory":[{"text":"a","event":"ADD"}]': (["a"], None),
    '{"memory":[{"text":"a","event":"ADD"}],"x":[1]}': (["a"], None),
    '{"memory":[{"text":"a","event":"ADD"}],"memory":[{': (None, None),
    '{"memory":[{"text":"a': (None, None),
    '{"op":"ADD","text":"a"}\n{"op":"ADD","text":"b': (["a"], ["a"]),
    '{"op":"ADD","text":"a"}\n{"op":"ADD","text":["b"]}\n{"op":"ADD","text":"c"}': (
        ["a", "c"],
        ["a"],
    ),
    # After a fault no object is looked for within a line: it may be a quoted text.
    '{"op":"ADD","text":"a"}\n{"op":"ADD","text":"b"c {"op":"ADD","text":"d"}': (["a"], ["a"]),
}


def test_what_was_whole_of_a_broken_response_can_be_kept(byte_table):
    rows = [random_split(text.encode(), byte_table, random.Random(1)) for text in KEPT]
    for place, salvage in enumerate((True, False)):
        results = _scan(rows, byte_table, salvage)
        for (text, kept), result in zip(KEPT.items(), results, strict=True):
            wanted = kept[place]
            found = [written for _, _, written in _operations(result, byte_table)]
            assert (found, bool(result.valid)) == (wanted or [], wanted is not None), text
            assert bool(result.salvaged) == (wanted is not None) and not result.strict
            _check(text.encode(), result, byte_table, salvage)


def test_a_cut_ends_at_a_whole_character(byte_table):
    letters = byte_table.byte_token
    for size, kept in ((0, 96), (1, 93), (2, 94), (3, 95)):
        data = b'{"op":"ADD","text":"' + b"x" * size + "🎈".encode() * 25 + b'"}'
        (result,) = _scan([letters[list(data)]], byte_table)
        text = _spell(byte_table, result.tokens[0, : result.length[0]])
        assert text.decode() == ("x" * size + "🎈" * 25)[: len(text.decode())]
        assert (result.length[0], result.cut) == (kept, 1)
        assert not result.tokens[0, kept:].any()
        whole = letters[[*b"x" * size, *("🎈" * 25).encode()]].tolist()
        on_the_host = cut_to_width(whole, MAX_TEXT, begins_character(byte_table))
        assert result.tokens[0, :kept].tolist() == on_the_host


def test_whole_tokens_are_copied_and_broken_ones_spelled(byte_table):
    table = byte_table.replace(bytes=byte_table.bytes.copy(), length=byte_table.length.copy())
    unused = range(len(table.length) - 5, len(table.length))
    for token, text in zip(unused, [b'"An', b"a li", b"k\\u", b"0041", b'."}'], strict=True):
        table.bytes[token, : len(text)] = list(text)
        table.length[token] = len(text)
    letters = table.byte_token
    (result,) = _scan([[*letters[list(b'{"op":"ADD","text":')], *unused]], table)
    _, inside, *_ = unused
    expected = [*letters[list(b"An")], inside, *letters[list(b"kA.")]]
    assert result.tokens[0, : result.length[0]].tolist() == expected


def test_long_texts_and_missing_byte_tokens(tokenizer, byte_table):
    long = random_split(
        b'{"op":"ADD","text":"' + b"0123456789" * 12 + b'"}', byte_table, _Shortest()
    )
    crippled = byte_table.replace(byte_token=byte_table.byte_token.copy())
    crippled.byte_token[ord("A")] = -1
    escaped = tokenizer.encode('{"op":"ADD","text":"x\\u0041\\u0042"}').ids
    cut, _ = _scan([long, escaped], byte_table)
    assert (cut.cut, cut.length[0], cut.count) == (1, MAX_TEXT, 1)
    _, spelled = _scan([long, escaped], crippled)
    assert spelled.unspelled == 1
    assert _operations(spelled, byte_table) == [(ADD, -1, "xB")]


class _Shortest:
    @staticmethod
    def choice(sizes):
        return sizes[0]


def test_what_lies_beyond_the_capacity_is_not_read(byte_table):
    line = b'{"op": "DELETE", "id": 1}\n'
    (result,) = _scan([random_split(line + b" " * 400, byte_table, random.Random(0))], byte_table)
    assert result.overflow and result.valid and result.count == 1


@pytest.mark.parametrize("salvage", [False, True])
def test_scanner_equals_the_reference(byte_table, salvage):
    rng = random.Random(int(os.environ.get("MEMR1_SEED", "0")))
    documents = [document(rng, CAPACITY) for _ in range(CASES)]
    results = _scan([random_split(d, byte_table, rng) for d in documents], byte_table, salvage)
    for data, result in zip(documents, results, strict=True):
        _check(data, result, byte_table, salvage)
    reference = [scan_operations_reference(data, MAX_OPERATIONS, salvage) for data in documents]
    assert sum(bool(r.operations) for r in reference) > CASES // 5  # the cases say something
    assert sum(not r.valid for r in reference) > CASES // 10
