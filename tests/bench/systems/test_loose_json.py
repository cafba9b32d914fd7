"""JSON with fences, prefaces and broken ends; ids and texts in the shapes that models write."""

import collections
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memr1_jax.bench.systems.loose_json import (
    Reading,
    is_true,
    numbers,
    read_counted,
    read_json,
    read_objects,
    texts,
)
from memr1_jax.bench.systems.protocol import Reply


@pytest.mark.parametrize(
    ("text", "facts", "reading"),
    [
        ('{"facts": ["a"]}', ["a"], Reading.STRICT),
        ('```json\n{"facts": ["a"]}\n```', ["a"], Reading.STRICT),
        ('{"facts": ["two\nlines"]}', ["two\nlines"], Reading.STRICT),
        ('Here: {"facts": ["a"]} Done.', ["a"], Reading.RECOVERED),
        ('{oops} {"facts": ["a"]}', ["a"], Reading.RECOVERED),
        ('{"result": {"facts": ["a"]}}', ["a"], Reading.RECOVERED),
        ('<think>{"facts": ["b"]}?</think>{"facts": ["a"]}', ["a"], Reading.STRICT),
        ('["a", "b"]', ["a", "b"], Reading.RECOVERED),
        ('{"facts": ["a", "b', ["a"], Reading.RECOVERED),
        ('{"facts": ["a", 12', ["a"], Reading.RECOVERED),
        ('{"facts": ["a"], "more": ', ["a"], Reading.RECOVERED),
        ('{"facts": [{"fact": "a"}, {"fact": "b', [{"fact": "a"}, {}], Reading.RECOVERED),
    ],
)
def test_what_can_be_read(text, facts, reading):
    value, how = read_json(text, "facts")
    assert how == reading
    # An object that was just begun may or may not be there.
    assert [item for item in value["facts"] if item] == [item for item in facts if item]


@pytest.mark.parametrize(
    "text", ["", "no JSON", '{"facts": ["a" "b"]}', '{"other": 1}', '"facts"', "{" * 3000]
)
def test_what_cannot_be_read_is_counted(text):
    counts = collections.Counter()
    for stopped in (True, False):
        reply = Reply(text, 1, 1, stopped, 0.0)
        assert read_counted(reply, "facts", "extract", counts) == {}
    assert counts == {"extract_failed": 2, "extract_cut": 1}


nested = st.recursive(
    st.text(max_size=5) | st.integers(-99, 99) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.lists(nested, min_size=1, max_size=4), st.data())
def test_what_was_broken_off_keeps_its_whole_elements(items, data):
    whole = json.dumps({"facts": items})
    cut = data.draw(st.integers(0, len(whole) - 2))
    value, _ = read_json(whole[:cut], "facts")
    read = (value or {}).get("facts") or []
    complete = sum(len(json.dumps({"facts": items[: n + 1]})) - 2 < cut for n in range(len(items)))
    assert read[:complete] == items[:complete]
    assert len(read) <= complete + 1


def test_objects_one_after_another():
    text = '{"tool": "a", "x": {"y": 1}}\nThen {"tool": "b"}, {"tool": "c'
    assert read_objects(text) == [{"tool": "a", "x": {"y": 1}}, {"tool": "b"}]


def test_texts_are_single_lines():
    assert texts(["a\n b", "", "a b", 3, {"n": 1, "fact": "c"}, "\ud800d"]) == [
        "a b",
        "c",
        "\ufffdd",
    ]
    assert texts("alone") == ["alone"]
    assert texts({"a": 1}) == []


def test_numbers_that_were_not_shown_are_counted():
    counts = collections.Counter()
    assert numbers([1, "0", 1, 2, -1, "x", True, 1.0, [0]], 2, counts) == [1, 0]
    assert counts["unknown_ids"] == 6
    assert numbers("1", 2, counts) == [1]
    assert numbers(None, 2, counts) == []
    assert counts["unknown_ids"] == 6


def test_truth_may_be_a_word():
    assert [is_true(value) for value in (True, "True ", "false", 1, None)] == [True, True] + [
        False
    ] * 3


def test_half_surrogates_are_no_part_of_a_text():
    text = r'{"facts": ["a \ud83d b", "\ud83d\ude00"]}'
    assert read_json(text, "facts")[0] == {"facts": ["a \ufffd b", "\U0001f600"]}
    assert read_objects(text + "x") == [{"facts": ["a \ufffd b", "\U0001f600"]}]
