"""Compares the replay of operations with the bank on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.evals.report.replay import (
    Change,
    DialogueRecord,
    Operation,
    TurnRecord,
    differences,
    outcomes,
    read_replay,
    write_replay,
)
from memr1_jax.memory.bank import Operations, apply_operations, empty_bank
from memr1_jax.text.events import Event

CAPACITY = 4
COUNT = 6


@jax.jit
def _on_the_device(alive, event, slot):
    bank = empty_bank(CAPACITY, 1, 1).replace(alive=alive)
    operations = Operations(
        event, slot, jnp.ones((COUNT, 1), jnp.int32), jnp.ones(COUNT, jnp.int32)
    )
    keys = jnp.zeros((COUNT, 1))
    after = apply_operations(bank, operations, keys, jnp.int32(0), jnp.int32(0))
    return after.alive, after.refused, after.unknown


def test_outcomes_are_those_of_the_bank():
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(200):
        alive = rng.random(CAPACITY) < 0.6
        slots = [int(slot) for slot in rng.permutation(np.flatnonzero(alive))]
        events = rng.integers(1, 4, COUNT)
        ids = rng.integers(-1, len(slots) + 1, COUNT)
        operations = [(Event(e), int(i), "text") for e, i in zip(events, ids, strict=True)]
        found = outcomes(operations, slots, set(np.flatnonzero(alive).tolist()), CAPACITY)
        slot = [slots[i] if 0 <= i < len(slots) else CAPACITY for i in ids]
        after, refused, unknown = _on_the_device(alive, events, np.array(slot))
        held = set(np.flatnonzero(alive).tolist())
        for operation in found:
            if operation.outcome == "applied":
                (held.discard if operation.event == "DELETE" else held.add)(operation.slot)
        assert held == set(np.flatnonzero(after).tolist())
        told = [operation.outcome for operation in found]
        assert told.count("refused") == refused
        assert told.count("unknown") + told.count("gone") == unknown
        kinds |= set(told)
    assert kinds == {"applied", "refused", "unknown", "gone"}


def test_an_id_names_what_was_shown():
    written = [(Event.DELETE, 0, ""), (Event.ADD, -1, "new"), (Event.UPDATE, 0, "other")]
    found = outcomes(written, [1], {0, 1}, 3)
    assert [(one.outcome, one.slot) for one in found][::2] == [("applied", 1), ("gone", None)]
    # With slots 0 to 2 in use the ADD takes the slot that was freed.
    assert [one.slot for one in outcomes(written, [1], {0, 1, 2}, 3)] == [1, 1, None]


def test_an_id_is_kept_as_it_was_written():
    assert outcomes([(Event.ADD, 7, "a"), (Event.ADD, -1, "b")], [], {0}, 3) == (
        Operation("ADD", 7, "a", "applied", 1),
        Operation("ADD", None, "b", "applied", 2),
    )


def test_differences_by_slot():
    before, after = {0: "a", 1: "b", 2: "c"}, {0: "a", 1: "B", 3: "d"}
    expected = (
        Change("changed", 1, "b", "B"),
        Change("removed", 2, "c", None),
        Change("added", 3, None, "d"),
    )
    assert differences(before, after) == expected
    refilled = [Operation("DELETE", 1, "", "applied", 1)]
    assert differences(before, after, refilled)[:2] == (
        Change("removed", 1, "b", None),
        Change("added", 1, None, "B"),
    )
    assert differences(before, before, refilled) == ()


def test_files(tmp_path):
    assert read_replay(tmp_path, "before") == []
    write_replay(tmp_path, "before", [])
    assert list(tmp_path.iterdir()) == []
    change = Change("added", 0, None, "Ana’s dog")
    turn = TurnRecord("Ana", "D1:1", "Ben", "1 May", "Hello.", ("Ana has a dog.",), (change,), 1)
    write_replay(tmp_path, "before", [DialogueRecord("c1", ("Ana", "Ben"), 8, (turn,), ())])
    (dialogue,) = read_replay(tmp_path, "before")
    assert (dialogue["id"], dialogue["capacity"]) == ("c1", 8)
    assert dialogue["turns"][0]["changes"] == (
        {"kind": "added", "slot": 0, "before": None, "after": "Ana’s dog"},
    )
    (tmp_path / "replay_after.json").write_text("[{")
    with pytest.raises(UserError, match="replay_after.json: this is not valid JSON"):
        read_replay(tmp_path, "after")
    (tmp_path / "replay_after.json").write_text('{"id": 1}')
    with pytest.raises(UserError, match="replay_after.json: this is no list of dialogues"):
        read_replay(tmp_path, "after")
