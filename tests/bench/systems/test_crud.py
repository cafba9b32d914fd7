"""The pipeline of Mem0 and Memory-R1 on a small dialogue, from facts to answers."""

import json

import pytest

from memr1_jax.bench.systems.crud import CrudSystem
from memr1_jax.bench.systems.extraction import extracted_facts, turn_facts
from memr1_jax.bench.systems.managers import add_only, language_model_manager, noop_only
from memr1_jax.data.types import Question
from tests.bench.systems.scripted import (
    JUNE,
    MAY,
    QUESTION,
    Script,
    counted,
    embed,
    held,
    last,
    read,
    reply,
    stage,
)

FACTS = {  # by person and something that the messages of the call hold
    ("Ann", "dog"): ["Ann has a dog named Rex."],
    ("Ann", "chess"): ["Ann plays chess."],
    ("Ann", "brother"): ["The dog Rex lives with Ann's brother."],
    ("Ben", "dog"): ["Ben lives in Oslo."],
    ("Ben", "chess"): ["Ben drinks tea."],
    ("Ben", "Bergen"): ["Ben lives in Bergen."],
}
DECISIONS = {  # by the text of the fact
    "Ann has a dog named Rex.": '{"op": "ADD", "text": "Ann has a dog named Rex."}',
    "Ann plays chess.": '{"op": "ADD", "text": "Ann plays chess."}',
    "The dog Rex lives with Ann's brother.": "I would say that this is new.",
    "Ben lives in Oslo.": '{"op": "ADD", "text": "Ben lives in Oslo."}',
    "Ben drinks tea.": '{"op": "DELETE", "id": 4}\n{"op": "ADD", "text": "Ben dri<cut>',
    "Ben lives in Bergen.": '{"op": "UPDATE", "id": 0, "text": "Ben lives in Bergen."}',
}


def say(call):
    text = last(call)
    if call.stage == "extract":
        person = text.rpartition("Facts about ")[2].removesuffix(":")
        found = [facts for (who, word), facts in FACTS.items() if who == person and word in text]
        return json.dumps({"facts": found[0]})
    if call.stage == "manage":
        new = text.partition("New facts:\n- ")[2].partition("\n")[0]
        return DECISIONS[new]
    return "Rex lives with the brother. **Answer:** with Ann's brother"


def crud(manager=None, facts=None, **options):
    manager = manager or language_model_manager(embed)
    facts = facts or extracted_facts("compact")
    return CrudSystem("row", facts, manager, embed, stage(), **options)


def test_bank_counters_and_sources_after_the_dialogue():
    script = Script(say)
    store = read(crud(), script)
    assert held(store) == [
        ("Ann has a dog named Rex.", MAY, "Ann", ("D1:1", "D1:2")),
        ("Ann plays chess.", MAY, "Ann", ("D1:3", "D1:4")),
        ("Ben lives in Bergen.", JUNE, "Ben", ("D1:1", "D1:2", "D2:1", "D2:2")),
    ]
    assert counted(store) == {
        "facts": 6,
        "extract_read": 6,
        "manage_read": 4,
        "manage_recovered": 1,
        "manage_failed": 1,
        "manage_cut": 1,
        "salvaged": 1,
        "add": 3,
        "update": 1,
        "delete": 1,
        "unknown_ids": 1,
    }


def test_streams_of_speakers_and_conversations_advance_together():
    script = Script(say)
    stores = read(crud(), script, conversations=3)
    assert script.stages() == [
        ["extract"] * 12,
        ["manage"] * 6,
        ["manage"] * 6,
        ["extract"] * 6,
        ["manage"] * 6,
    ]
    alone = read(crud(), Script(say))
    assert all(held(store) == held(alone) for store in stores)
    assert all(store.counts == alone.counts for store in stores)


def test_the_answer_is_made_from_the_nearest_memories_of_each_speaker():
    script = Script(say)
    store = read(crud(memories=1), script)
    before = held(store)
    answer = reply(store, script, Question("Where does Ben live with Rex?", "", 1, (), 0))
    assert (answer.answer, answer.rule) == ("with Ann's brother", "bold_label")
    assert [memory.text for memory in answer.memories] == [
        "Ben lives in Bergen.",
        "Ann has a dog named Rex.",
    ]
    (call,) = script.batches[-1]
    assert (call.stage, call.model) == ("answer", "base")
    assert f"Memories of Ben:\n- {JUNE}: Ben lives in Bergen.\nQuestion:" in last(call)
    assert held(store) == before
    assert answer.search_seconds > 0


def test_facts_can_be_handed_over_in_parts():
    facts = {"facts": ["Ann has a dog.", "Ann has a cat.", "Ann has a cow."]}

    def two(call):
        if call.stage == "extract":
            return json.dumps(facts if "Facts about Ann" in last(call) else {"facts": []})
        return '{"op": "NONE"}'

    script = Script(two)
    store = read(crud(facts_per_call=2), script)
    shown = [last(c).count("Ann has") for c in script.calls if c.stage == "manage"]
    assert shown == [2, 1] * 3
    assert store.counts["none"] == 6


@pytest.mark.parametrize(("manager", "size"), [(add_only(embed), 6), (noop_only, 0)])
def test_rules_in_the_place_of_a_model(manager, size):
    script = Script(say)
    store = read(crud(manager, turn_facts), script)
    assert script.batches == []
    assert len(store.memories()) == size
    answer = reply(store, script, QUESTION)
    assert len(answer.memories) == size
    assert script.stages() == [["answer"]]
