"""The bank against a plain list, and the promise that no operation is a branch."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1_jax.memory.bank import (
    Operations,
    add,
    apply_operations,
    bank_from_facts,
    bank_size,
    delete,
    empty_bank,
    update,
)
from memr1_jax.text.events import Event

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200
CAPACITY, WIDTH, FEATURES, STEPS = 3, 3, 2, 12


class ListBank:
    """The same bank as a list of dictionaries with None for dead slots."""

    def __init__(self, capacity):
        self.slots = [None] * capacity
        self.refused = self.unknown = self.overflowed = 0
        self.show()

    def show(self):
        """Lets a slot name the memory that it holds from here on."""
        self.shown = list(self.slots)

    def apply(self, event, slot, text, length, key, time, source):
        alive = 0 <= slot < len(self.slots) and self.shown[slot] is not None
        memory = dict(text=text[: min(length, WIDTH)], key=key, updated=time, source=source)
        if event == Event.DELETE:
            if alive:
                self.slots[slot] = self.shown[slot] = None
            self.unknown += not alive
        elif event == Event.ADD and length > 0:
            if None not in self.slots:
                self.refused += 1
                return
            self.slots[self.slots.index(None)] = memory | {"created": time}
            self.overflowed += length > WIDTH
        elif event == Event.UPDATE and length > 0:
            if not alive:
                self.unknown += 1
                return
            self.slots[slot] = memory | {"created": self.slots[slot]["created"]}
            self.overflowed += length > WIDTH


def assert_equal(bank, expected):
    found = []
    for i in range(len(expected.slots)):
        found.append(
            dict(
                text=bank.tokens[i, : bank.length[i]].tolist(),
                key=bank.key[i].tolist(),
                updated=int(bank.updated[i]),
                source=int(bank.source[i]),
                created=int(bank.created[i]),
            )
            if bank.alive[i]
            else None
        )
    assert found == expected.slots
    counters = bank.refused, bank.unknown, bank.overflowed
    assert counters == (expected.refused, expected.unknown, expected.overflowed)


operation = st.tuples(
    # Twice as many ADDs as anything else, so that banks fill up.
    st.sampled_from([Event.NONE, Event.ADD, Event.ADD, Event.UPDATE, Event.DELETE]),
    st.integers(-2, CAPACITY + 1),
    st.lists(st.integers(1, 9), min_size=WIDTH, max_size=WIDTH),
    st.integers(0, WIDTH + 2),
    st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=FEATURES, max_size=FEATURES),
)
sequence = st.lists(operation, max_size=STEPS)


@jax.jit
@jax.vmap
def edit_twice(operations, keys):
    """Makes two turns of six operations, with times 1, 2 and sources 7, 8."""
    bank = empty_bank(CAPACITY, WIDTH, FEATURES)
    for turn, part in enumerate([slice(None, STEPS // 2), slice(STEPS // 2, None)]):
        chosen = jax.tree.map(lambda leaf, part=part: leaf[part], operations)
        bank = apply_operations(bank, chosen, keys[part], jnp.int32(1 + turn), jnp.int32(7 + turn))
    return bank


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(st.tuples(sequence, sequence))
def test_edits_equal_those_of_a_list(speakers):
    nothing = (Event.NONE, 0, [0] * WIDTH, 0, [0.0] * FEATURES)
    padded = [case + [nothing] * (STEPS - len(case)) for case in speakers]
    event, slot, tokens, length, keys = (
        np.array([[item[i] for item in case] for case in padded]) for i in range(5)
    )
    operations = Operations(*(c.astype(np.int32) for c in (event, slot, tokens, length)))
    banks = jax.device_get(edit_twice(operations, keys.astype(np.float32)))
    for i, case in enumerate(padded):
        expected = ListBank(CAPACITY)
        for step, item in enumerate(case):
            late = step >= STEPS // 2
            if step == STEPS // 2:
                expected.show()
            expected.apply(*item, time=1 + late, source=7 + late)
        assert_equal(jax.tree.map(lambda leaf, i=i: leaf[i], banks), expected)


def test_single_operations():
    key = jnp.ones(2)
    bank = empty_bank(2, 3, 2)
    bank = add(bank, jnp.array([5, 6, 0]), 2, key, 0, 10)
    bank = add(bank, jnp.array([7, 0, 0]), 1, key, 1, 11)
    assert add(bank, jnp.array([8, 0, 0]), 1, key, 1, 11).refused == 1
    bank = update(bank, 0, jnp.array([9, 9, 9]), 5, 2 * key, 2, 12)
    assert bank.tokens.tolist() == [[9, 9, 9], [7, 0, 0]]
    assert (bank.created.tolist(), bank.updated.tolist()) == ([0, 1], [2, 1])
    assert (bank.source.tolist(), int(bank.overflowed)) == ([12, 11], 1)
    bank = delete(bank, 0)
    assert (bank.alive.tolist(), int(bank_size(bank))) == ([False, True], 1)
    assert bank.tokens[0].tolist() == [9, 9, 9]  # only `alive` is cleared
    assert delete(bank, -1).unknown == 1


def test_a_slot_names_what_it_held_before_the_first_operation():
    """Tries DELETE 0, ADD, then DELETE 0 or UPDATE 0: the new memory in slot 0 has no id."""
    bank = empty_bank(2, 1, 1)
    bank = add(bank, jnp.array([5]), 1, jnp.zeros(1), 0, 0)
    for last in (Event.DELETE, Event.UPDATE):
        events = jnp.array([Event.DELETE, Event.ADD, last])
        tokens, ones = jnp.array([[0], [7], [9]]), jnp.ones(3, jnp.int32)
        after = apply_operations(
            bank, Operations(events, 0 * ones, tokens, ones), jnp.zeros((3, 1)), 1, 1
        )
        assert after.alive.tolist() == [True, False] and int(after.tokens[0, 0]) == 7
        assert int(after.unknown) == 1


def test_a_bank_from_facts_equals_adding_them():
    facts = [[1, 2], [], [3, 4, 5, 6], [7], [8]]
    keys = np.arange(10, dtype=np.float32).reshape(5, 2)
    built = bank_from_facts(facts, keys, [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], capacity=3, width=3)
    bank = empty_bank(3, 3, 2)
    for i, fact in enumerate(facts):
        tokens = jnp.array((fact + [0, 0, 0])[:3])
        bank = add(bank, tokens, len(fact), keys[i], i, 5 + i)
    for path, leaf in jax.tree.leaves_with_path(bank):
        expected = dict(jax.tree.leaves_with_path(built))[path]
        assert leaf.dtype == expected.dtype and leaf.tolist() == expected.tolist(), path
    assert (int(bank.refused), int(bank.overflowed)) == (1, 1)


def test_a_cut_fact_ends_at_a_whole_character():
    begins = np.array([True] * 5 + [False] * 3)  # tokens 5 to 7 continue a character
    facts = [[1, 2, 4, 5], [1, 2, 3, 4], [4, 5, 6, 7], [4, 5, 6]]
    bank = bank_from_facts(
        facts, np.zeros((4, 2)), [0] * 4, [0] * 4, capacity=4, width=3, begins=begins
    )
    held = [row[:n].tolist() for row, n in zip(bank.tokens, bank.length, strict=True)]
    assert held == [[1, 2], [1, 2, 3], [4, 5, 6], []]  # of the third nothing is left
    assert int(bank.overflowed) == 2


def branches(edit):
    """Tells whether the traced and the compiled program of an edit of one bank hold a branch."""
    operations = Operations(*(jnp.zeros(shape, jnp.int32) for shape in (5, 5, (5, 4), 5)))
    traced = jax.jit(edit).trace(empty_bank(8, 4, 2), operations, jnp.zeros((5, 2)), 0, 0)
    compiled = traced.lower().compile().as_text()
    return "cond[" in str(traced.jaxpr), " conditional(" in compiled


def test_no_operation_is_a_branch():
    """Guards `vmap`, under which a branch would copy the whole bank for each event."""

    def branching(bank, operations, keys, time, source):
        def step(bank, event):
            return jax.lax.switch(event, [lambda b: b, lambda b: delete(b, 0)], bank), None

        return jax.lax.scan(step, bank, operations.event)[0]

    assert branches(branching) == (True, True)  # the check itself
    assert branches(apply_operations) == (False, False)
