"""The sample of a manager's turns that a person judges by hand."""

import json

import pytest

from memr1_jax.errors import UserError
from memr1_jax.evals.report.operation_sample import OperationSampleConfig, operation_sample
from memr1_jax.evals.report.replay import (
    Change,
    DialogueRecord,
    Memory,
    Operation,
    TurnRecord,
    write_replay,
)


def _turn(number, **more):
    fields = {"time": "1 May", "text": f"Words {number}.", "facts": (f"Fact {number}.",)}
    fields |= {"output": f"output {number}", "changes": (), "size": number}
    return TurnRecord("Ana", f"D1:{number}", "Ana", **fields | more)


def _add(number):
    text = f"Fact {number}."
    operation = Operation("ADD", None, text, "applied", number)
    return _turn(number, operations=(operation,), changes=(Change("added", number, None, text),))


@pytest.fixture
def folder(tmp_path):
    """Writes ten ADDs and one turn of each other kind; the last had no manager."""
    update = _turn(
        *(10,),
        shown=(Memory(0, 3, "Fact\x1b[2J 3."),),
        operations=(Operation("UPDATE", 0, "New.", "applied", 3),),
        changes=(Change("changed", 3, "Fact 3.", "New."),),
    )
    refused = _turn(11, operations=(Operation("DELETE", 7, "", "unknown", None),))
    turns = (
        *map(_add, range(10)),
        *(update, refused, _turn(12, none=1), _turn(13, valid=False), _turn(14, output=None)),
    )
    write_replay(tmp_path, "after", [DialogueRecord("talk", ("Ana", "Ben"), 20, turns, ())])
    for name in ("before", "after"):
        (tmp_path / f"evaluation_{name}.json").write_text(json.dumps({}))
    return tmp_path


def sample(folder, **options):
    return operation_sample(OperationSampleConfig(output=str(folder), **options))


def test_all_operations_are_counted_and_some_turns_are_shown(folder):
    text = sample(folder, count=5)
    assert "5 of 14 turns, evaluation 'after'" in text
    assert "ADD 10, UPDATE 1, DELETE 1, NONE 1, unreadable 1." in text
    assert text.count("\n## ") == 5
    assert text == sample(folder, count=5) != sample(folder, count=5, seed=1)


def test_a_turn_is_shown_in_full_and_nothing_of_it_moves_the_cursor(folder):
    text = sample(folder, only="update")
    assert text.count("\n## ") == 1
    for line in (
        "## 1. talk D1:10, 1 May; bank of Ana, memories afterwards: 10",
        "- Ana said: Words 10.",
        "- told: Fact 10.",
        "- shown 0: Fact\ufffd[2J 3.",
        "- wrote: `output 10`",
        "- changed: Fact 3. -> New.",
    ):
        assert line in text.split("\n")


def test_what_changed_nothing_says_so(folder):
    assert "- DELETE of 7 not applied: unknown" in sample(folder, only="DELETE")
    assert "- nothing changed" in sample(folder, only="NONE")


def test_there_must_be_turns_and_known_operations(folder, tmp_path):
    with pytest.raises(UserError, match=r"replay_before.json. Its evaluations are before, after"):
        sample(folder, evaluation="before")
    with pytest.raises(UserError, match="MERGE is none of ADD, UPDATE, DELETE, NONE"):
        sample(folder, only="ADD,MERGE")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="Its evaluations are none"):
        sample(empty)
