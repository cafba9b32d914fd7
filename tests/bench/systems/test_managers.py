"""Managers: what the model is shown, what of its reply is done to the bank, and the plain rules."""

import collections

import jax
import numpy as np
import pytest
from tiny_model import bank_of, facts_of, make_tiny, texts_of

from memr1_jax.agents.manager import manager_prompt
from memr1_jax.agents.prompt_files import read_prompt
from memr1_jax.agents.templates import render_chat
from memr1_jax.bench.systems.managers import (
    add_only,
    language_model_manager,
    manager_messages,
    noop_only,
    random_operations,
)
from memr1_jax.bench.systems.neighbours import nearest_to_any
from memr1_jax.bench.systems.protocol import Memory, together
from memr1_jax.bench.systems.text_bank import Bank, add
from memr1_jax.data.types import Fact
from tests.bench.systems.scripted import JUNE, MAY, Script, embed, last

TEXTS = ("Ann has a dog.", "Ann plays chess.", "She owns a canoe.")
NEW = [
    Fact("Ann", "Ann has a cat.", 2, ("D2:1", "D2:2")),
    Fact("Ann", "Ann plays go.", 2, ("D2:2",)),
]


@pytest.fixture
def bank():
    memories = [Memory(text, MAY, "Ann", (f"D1:{n}",)) for n, text in enumerate(TEXTS)]
    return add(Bank(), memories, embed)


def run(manager, bank, script=None, facts=NEW):
    counts = collections.Counter()
    (after,) = together([manager(bank, facts, JUNE, counts)], script)
    return after, {name: value for name, value in counts.items() if value}


def texts(bank):
    return {identity: memory.text for identity, memory in bank.items.items()}


@pytest.mark.parametrize("name", ["manager_compact", "manager_full"])
def test_the_prompt_is_that_of_the_rollout(name):
    tiny = make_tiny(manager_prompt=name.removeprefix("manager_"), max_prompt_length=3000)
    manager, tools = tiny.pair.manager, tiny.pair.tools
    device = bank_of(tiny, [*TEXTS])
    facts = ["Ann has a cat.", "Ann plays go."]
    prompt = jax.jit(lambda b, f: manager_prompt(manager, tools, b, f))(
        device, facts_of(tiny, facts)
    )
    shown = [texts_of(tiny, device)[int(s)].strip() for s in prompt.slots[: int(prompt.shown)]]
    messages = manager_messages(read_prompt(name), shown, facts)
    tokens = [*manager.template.instruction, *np.asarray(prompt.tokens)[: int(prompt.length)]]
    assert render_chat(name, messages, tiny.model.tokenizer) == tiny.decode(np.array(tokens))


def test_neighbours_are_numbered_best_first_and_sources_are_joined(bank):
    def say(call):
        return '{"op": "UPDATE", "id": 0, "text": "Ann has a dog and a cat."}\n{"op": "NONE"}'

    script = Script(say)
    after, counts = run(language_model_manager(embed, neighbours=1), bank, script)
    assert last(script.calls[0]) == (
        "Memories:\n0: Ann has a dog.\n1: Ann plays chess.\nNew facts:\n- Ann has a cat.\n"
        "- Ann plays go.\nOperations:"
    )
    assert after.items[0] == Memory(
        "Ann has a dog and a cat.", JUNE, "Ann", ("D1:0", "D2:1", "D2:2")
    )
    np.testing.assert_allclose(after.keys[0], embed(["Ann has a dog and a cat."])[0])
    assert {**texts(after), 0: TEXTS[0]} == texts(bank)
    assert counts == {"manage_read": 1, "update": 1, "none": 1}


FULL = (
    '```json\n{"memory": [{"id": "0", "text": "Ann has a dog.", "event": "DELETE"},'
    ' {"id": "1", "text": "Ann plays go.", "event": "UPDATE", "old_memory": "x"},'
    ' {"id": "0", "text": "Late.", "event": "UPDATE"}, {"id": "7", "event": "DELETE"},'
    ' {"id": "2", "text": "", "event": "ADD"}, {"id": "9", "text": "New.", "event": "ADD"}]}\n```'
)


@pytest.mark.parametrize(
    ("prompt", "written", "expected", "counts"),
    [
        (
            "full",
            FULL,
            {1: "Ann plays go.", 2: "She owns a canoe.", 3: "New."},
            {"manage_recovered": 1, "delete": 2, "update": 2, "add": 1, "gone_ids": 1}
            | {"unknown_ids": 1, "skipped": 1},
        ),
        ("full", FULL[:-12], dict(enumerate(TEXTS)), {"manage_failed": 1}),
        ("compact", "I would rather not.", dict(enumerate(TEXTS)), {"manage_failed": 1}),
        (
            "compact",
            '{"op": "ADD", "text": "One."}\n{"op": "ADD", "text": "Two<cut>',
            {**dict(enumerate(TEXTS)), 3: "One."},
            {"manage_recovered": 1, "manage_cut": 1, "add": 1, "salvaged": 1},
        ),
        (
            "compact",
            '{"op": "DELETE", "id": 0}\n{"op": "ADD", "text": "New."}\n{"op": "DELETE", "id": 0}',
            {1: TEXTS[1], 2: TEXTS[2], 3: "New."},
            {"manage_read": 1, "delete": 2, "add": 1, "gone_ids": 1},
        ),
        (
            "compact",
            '{"op": "DELETE", "id": 5}\n{"op": "UPDATE", "id": 3, "text": "x"}',
            dict(enumerate(TEXTS)),
            {"manage_read": 1, "delete": 1, "update": 1, "unknown_ids": 2},
        ),
    ],
)
def test_what_is_written_is_done_or_counted(bank, prompt, written, expected, counts):
    facts = [Fact("Ann", "Ann has a dog who plays chess.", 2, ("D2:1",))]
    # The order that the ids stand for: dog, chess, canoe.
    assert nearest_to_any(bank, [facts[0].text], 5, 20, embed) == [0, 1, 2]
    after, found = run(
        language_model_manager(embed, prompt), bank, Script(lambda _: written), facts
    )
    assert texts(after) == expected
    assert found == counts


def test_what_was_whole_of_a_broken_response_is_kept_on_request(bank):
    facts = [Fact("Ann", "Ann has a dog who plays chess.", 2, ("D2:1",))]
    manager = language_model_manager(embed, "full", salvage=True)
    after, counts = run(manager, bank, Script(lambda _: FULL[:-12]), facts)
    assert texts(after) == {1: "Ann plays go.", 2: "She owns a canoe."}
    found = {"manage_recovered": 1, "salvaged": 1, "delete": 2, "update": 2}
    assert counts == found | {"gone_ids": 1, "unknown_ids": 1, "skipped": 1}


def test_calls_name_weights_and_grammar(bank):
    script = Script(lambda call: '{"op": "NONE"}')
    options = {"model": "manager", "schema": "compact", "max_tokens": 99, "shown": 2}
    run(language_model_manager(embed, "compact_nano", **options), bank, script)
    (call,) = script.calls
    assert (call.stage, call.model, call.schema) == ("manage", "manager", "compact")
    assert (call.ids, call.max_tokens) == (2, 99)
    assert len(call.messages) == 1  # no instruction, no examples


def test_the_least_similar_memories_go_where_there_is_no_room(bank):
    script = Script(lambda call: '{"op": "NONE"}')
    manager = language_model_manager(embed, room=10, count=lambda text: len(text.split()))
    _, counts = run(manager, bank, script)
    assert "1: Ann plays chess.\nNew facts:" in last(script.calls[0])
    assert counts["neighbours_dropped"] == 1


def test_add_only_stores_everything_once(bank):
    facts = [*NEW, Fact("Ann", "Ann has a dog.", 2, ("D2:3",)), NEW[0]]
    after, counts = run(add_only(embed), bank, facts=facts)
    assert texts(after) == {**dict(enumerate(TEXTS)), 3: NEW[0].text, 4: NEW[1].text}
    assert after.items[0] == Memory("Ann has a dog.", MAY, "Ann", ("D1:0", "D2:3"))
    assert after.items[4] == Memory("Ann plays go.", JUNE, "Ann", ("D2:2",))
    assert counts == {"add": 2, "duplicates": 2}


def test_noop_stores_nothing(bank):
    assert run(noop_only, bank) == (bank, {"none": 2})


def test_random_operations_are_legal_and_depend_on_seed_and_facts_alone(bank):
    facts = [Fact("Ann", f"Ann has {n} figs.", 2, (f"D2:{n}",)) for n in range(400)]
    empty, counts = run(random_operations(embed, 1), Bank(), facts=facts)
    assert set(counts) == {"add", "none"}
    assert 150 < counts["add"] < 250
    assert len(empty.items) == counts["add"]

    ends = [run(random_operations(embed, seed), bank, facts=facts) for seed in (1, 1, 2)]
    assert texts(ends[0][0]) == texts(ends[1][0]) != texts(ends[2][0])
    counts = ends[0][1]
    assert all(60 < counts[name] < 140 for name in ("add", "update", "delete", "none"))
    assert counts["gone_ids"] > 0 and "unknown_ids" not in counts
