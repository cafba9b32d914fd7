"""Temporal facts: ranges, ends instead of deletions, repeated facts, two orders of a search."""

import json

import numpy as np

from memr1_jax.bench.systems.neighbours import fused
from memr1_jax.bench.systems.protocol import Memory
from memr1_jax.bench.systems.temporal import TemporalSystem
from memr1_jax.bench.systems.text_bank import Bank, add
from memr1_jax.data.types import Question
from tests.bench.systems.scripted import (
    MAY,
    SESSIONS,
    Script,
    counted,
    embed,
    held,
    last,
    read,
    reply,
    stage,
)


def fact(text, start="", end=""):
    return {"fact": text, "valid_from": start, "valid_to": end}


FACTS = {
    "I adopted": [fact("Ann owns the dog Rex.", "2 May 2023"), fact("", "2023")],
    "Nice!": [fact("Ben lives in Oslo."), "Ben is glad.", "Ben is glad."],
    "chess": "No facts here.",
    "tea": [],
    "Rex lives": [
        fact("Ann owns the dog Rex.", "", "June 2023"),
        fact("Rex lives with Ann's brother.", "June 2023"),
    ],
    "Bergen": [fact("Ben lives in Bergen.", "1 June 2023")],
}
RESOLVED = {
    "Rex lives with": [
        {"fact": 0, "duplicates": [0], "contradicts": [0, 9]},
        {"fact": 5, "duplicates": [1]},
        "rubbish",
    ],
    "Bergen": [{"fact": 0, "duplicates": [], "contradicts": ["0", 1]}],
}


def say(call):
    text = last(call)
    if call.stage == "temporal_facts":
        message = text.partition("Message (")[2]
        facts = next(facts for words, facts in FACTS.items() if words in message)
        return facts if isinstance(facts, str) else json.dumps({"facts": facts})
    if call.stage == "temporal_resolve":
        new = text.partition("New facts:")[2]
        found = next((r for words, r in RESOLVED.items() if words in new), [])
        return json.dumps({"resolutions": found})
    return "**Answer:** brother"


def system(**options):
    return TemporalSystem("temporal_facts", embed, stage(), **options)


def test_facts_get_ends_and_are_never_deleted():
    script = Script(say)
    store = read(system(neighbours=1), script)
    assert held(store) == [
        ("Ann owns the dog Rex.", "from 2 May 2023 to June 2023", "", ("D1:1", "D2:1")),
        ("Ben lives in Oslo.", f"from {MAY} to 1 June 2023", "", ("D1:2",)),
        ("Ben is glad.", f"from {MAY}", "", ("D1:2",)),
        ("Rex lives with Ann's brother.", "from June 2023", "", ("D2:1",)),
        ("Ben lives in Bergen.", "from 1 June 2023", "", ("D2:2",)),
    ]
    assert counted(store) == {
        "facts": 6,
        "skipped": 2,
        "add": 5,
        "duplicates": 2,  # one within a response
        "ended": 1,
        "unknown_ids": 3,
        "temporal_facts_read": 5,
        "temporal_facts_failed": 1,
        "temporal_resolve_read": 3,
    }


def test_what_the_model_is_shown():
    script = Script(say)
    read(system(neighbours=1, earlier=2), script, conversations=2)
    assert script.stages() == [
        ["temporal_facts"] * 8,
        ["temporal_resolve"] * 2,
        ["temporal_facts"] * 4,
        ["temporal_resolve"] * 2,
        ["temporal_resolve"] * 2,
    ]
    first, *_, fourth = script.batches[0][:4]
    assert last(first) == (
        f"Earlier messages:\n(none)\nMessage ({MAY}) of Ann: I adopted a dog, Rex."
    )
    assert last(fourth) == (
        "Earlier messages:\nBen: Nice! I moved to Oslo.\nAnn: I play chess.\n"
        f"Message ({MAY}) of Ben: I drink tea."
    )
    later = script.batches[2][0]
    assert "Earlier messages:\nAnn: I play chess.\nBen: I drink tea.\nMessage" in last(later)
    assert last(script.batches[4][0]) == (
        f"Stored facts:\n0: Ben lives in Oslo. (from {MAY})\n"
        "New facts:\n0: Ben lives in Bergen. (from 1 June 2023)\n"
    )


def test_a_fact_that_has_ended_keeps_its_end():
    ended = {"I adopted": [fact("Ann owns a dog.", "", "1999")], "Nice!": [fact("Ann has a dog.")]}

    def contradict(call):
        if call.stage == "temporal_facts":
            found = [f for words, f in ended.items() if words in last(call).partition("Mess")[2]]
            return json.dumps({"facts": found[0] if found else []})
        return '{"resolutions": [{"fact": 0, "contradicts": [0]}]}'

    store = read(system(), Script(contradict), SESSIONS[:1])
    assert [m.time for m in store.memories()] == [f"from {MAY} to 1999", f"from {MAY}"]


def test_unreadable_resolutions_store_everything():
    def rubbish(call):
        return say(call) if call.stage == "temporal_facts" else '{"resolutions": [{"fact": 0, "d'

    store = read(system(), Script(rubbish))
    assert store.counts["temporal_resolve_recovered"] == 3
    assert (store.counts["ended"], store.counts["duplicates"]) == (0, 1)
    assert len(store.memories()) == store.counts["facts"] == 6


def test_the_answer_shows_ranges_in_one_list():
    script = Script(say)
    store = read(system(memories=3, neighbours=1), script)
    question = Question("Where does the dog Rex live?", "", 1, (), 0)
    answer = reply(store, script, question)
    assert len(answer.memories) == 3
    assert answer.memories[0].text in ("Rex lives with Ann's brother.", "Ann owns the dog Rex.")
    text = last(script.calls[-1])
    assert "Memories of Ann and Ben:\n" in text
    assert "- from June 2023: Rex lives with Ann's brother.\n" in text
    empty = system().start(("Ann", "Ben"))
    assert reply(empty, script, question).memories == ()


def test_fusion_of_two_orders():
    texts = ("tea dog", "dog", "canoe")
    bank = add(Bank(), [Memory(text, "noon") for text in texts], embed)
    # By vectors 1, 0, 2; by words 2, 0: so memory 2 has 1/63 + 1/61, 0 has 2/62, 1 has 1/61.
    words = np.array([1.0, 0.0, 5.0])
    assert fused(bank, "dog", words, 3, embed) == [2, 0, 1]
    assert 1 / 63 + 1 / 61 > 2 / 62 > 1 / 61
    assert fused(bank, "dog", words, 1, embed) == [2]
    assert fused(bank, "dog", np.zeros(3), 2, embed) == [1, 0]
