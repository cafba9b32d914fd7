import warnings

import pytest

from memr1_jax.data.notes import Note, tell


def test_notes_are_counted_and_the_first_place_is_named():
    notes = [
        Note("tails", "f.json, 3", "a"),
        Note("heads", "f.json, 4"),
        Note("tails", "f.json, 9"),
    ]
    with pytest.warns(UserWarning) as caught:
        tell("f.json", notes)
    (warning,) = caught
    assert str(warning.message) == "f.json: tails: 2 (the first: 3, 'a'); heads: 1 (the first: 4)."


def test_nothing_to_note_is_not_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell("f.json", [])
