"""The one table of operations."""

import pathlib

import memr1_jax
from memr1_jax.text.events import REPORTED, SPELLINGS, Event


def test_what_is_said_of_each_operation():
    assert [event.label for event in REPORTED] == ["ADD", "UPDATE", "DELETE", "NOOP"]
    assert SPELLINGS["noop"] == SPELLINGS["none"] == Event.NONE == 0
    assert [e.name for e in Event if e.names_memory] == ["UPDATE", "DELETE"]
    assert [e.name for e in Event if e.writes] == ["ADD", "UPDATE"]


def test_no_other_file_lists_operations_or_their_colours():
    """Makes sure that a new operation reaches automaton, grammar, charts and page by the table."""
    package = pathlib.Path(memr1_jax.__file__).parent
    colours = [colour for event in Event for colour in event.colours]
    lists = ['"add", "update"', '"ADD", "UPDATE"', "Event.ADD, Event.UPDATE"]
    for path in [*package.rglob("*.py"), *package.rglob("*.css"), *package.rglob("*.html")]:
        if path.name not in ("events.py", "story.py"):  # the latter writes a data format
            text = path.read_text(encoding="utf-8")
            assert not [part for part in colours + lists if part in text], path
