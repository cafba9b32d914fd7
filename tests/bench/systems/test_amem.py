"""A-Mem: what notes become, links and revisions, stale vectors, and what a question finds."""

import dataclasses
import json

import numpy as np

from memr1_jax.bench.systems.amem import AMemSystem
from tests.bench.systems.scripted import (
    JUNE,
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

DESCRIBED = {
    "dog": {"keywords": ["dog", "Rex"], "context": "A dog is adopted.", "tags": ["pets"]},
    "Oslo": {"keywords": ["Oslo"], "context": "A move.", "tags": ["home"]},
    "chess": "Keywords: chess",
    "tea": {"keywords": [], "context": "", "tags": []},
    "brother": {"keywords": ["brother", "Rex"], "context": "The dog moved.", "tags": []},
    "Bergen": '{"keywords": ["Bergen"], "context": "Another mo<cut>',
}


def describe(call):
    value = next(v for word, v in DESCRIBED.items() if word in last(call))
    return value if isinstance(value, str) else json.dumps(value)


def evolve(call):
    text = last(call)
    numbers = {line[3:]: line[0] for line in text.splitlines() if line[1:3] == ": "}
    dog = next((n for content, n in numbers.items() if "adopted a dog" in content), None)
    if "brother" in text.partition("Similar")[0]:
        return json.dumps(
            {
                "should_evolve": True,
                "actions": ["strengthen", "update_neighbor"],
                "links": [dog, 17],
                "tags": ["family"],
                "neighbors": [
                    {"id": int(dog), "context": "Rex, adopted in May, moved out.", "tags": ["old"]},
                    {"id": 99, "context": "Nothing."},
                    "rubbish",
                ],
            }
        )
    return '{"should_evolve": false}'


def say(call):
    answers = {"describe": describe, "evolve": evolve}
    if call.stage == "query":
        return '{"keywords": ["brother", "lives"]}'
    return answers[call.stage](call) if call.stage in answers else "**Answer:** brother"


def system(**options):
    return AMemSystem("a_mem", embed, stage(), **options)


def test_notes_links_revisions_and_counters():
    script = Script(say)
    store = read(system(), script)
    assert held(store) == [
        (
            "Speaker Ann says: I adopted a dog, Rex. (context: Rex, adopted in May, moved out.;"
            " keywords: dog, Rex; tags: old)",
            MAY,
            "Ann",
            ("D1:1",),
        ),
        (
            "Speaker Ben says: Nice! I moved to Oslo. (context: A move.; keywords: Oslo;"
            " tags: home)",
            MAY,
            "Ben",
            ("D1:2",),
        ),
        ("Speaker Ann says: I play chess.", MAY, "Ann", ("D1:3",)),
        ("Speaker Ben says: I drink tea.", MAY, "Ben", ("D1:4",)),
        (
            "Speaker Ann says: Rex lives with my brother now. (context: The dog moved.;"
            " keywords: brother, Rex; tags: family)",
            JUNE,
            "Ann",
            ("D2:1",),
        ),
        (
            "Speaker Ben says: I moved on to Bergen. (keywords: Bergen)",
            JUNE,
            "Ben",
            ("D2:2",),
        ),
    ]
    assert counted(store) == {
        "notes": 6,
        "describe_read": 4,
        "describe_failed": 1,
        "describe_recovered": 1,
        "describe_cut": 1,
        "evolve_read": 5,
        "evolutions": 1,
        "links": 1,
        "revised": 1,
        "unknown_ids": 2,
        "skipped": 1,
    }


def test_descriptions_of_a_session_are_one_batch_and_conversations_keep_step():
    script = Script(say)
    read(system(), script, conversations=2)
    assert script.stages() == [
        ["describe"] * 8,
        *[["evolve"] * 2] * 3,  # the first note has no neighbours
        ["describe"] * 4,
        *[["evolve"] * 2] * 2,
    ]


def test_a_question_is_searched_by_keywords_and_linked_notes_are_shown():
    script = Script(say)
    store = read(system(memories=1), script)
    before = held(store)
    answer = reply(store, script)
    assert script.stages()[-2:] == [["query"], ["answer"]]
    assert [memory.sources for memory in answer.memories] == [("D2:1",), ("D1:1",)]
    assert answer.answer == "brother"
    assert held(store) == before


def test_vectors_are_stale_until_all_is_embedded_anew():
    def keys(store):
        index = store._index  # what is searched is no part of the interface
        return {i: index.keys[i] @ embed([store._notes[i].indexed])[0] for i in index.keys}

    stale = keys(read(system(), Script(say)))
    assert stale[0] < 0.95 and all(abs(stale[i] - 1) < 1e-5 for i in range(1, 6))
    store = read(system(reindex_every=1), Script(say))
    assert store.counts["reindexed"] == 1
    np.testing.assert_allclose(list(keys(store).values()), 1, rtol=1e-5)


def test_rubbish_keeps_the_turns():
    store = read(system(), Script(lambda call: "I cannot."))
    assert [memory.text for memory in store.memories()] == [
        f"Speaker {turn.speaker} says: {turn.text}" for s in SESSIONS for turn in s.turns
    ]
    assert counted(store) == {"notes": 6, "describe_failed": 6, "evolve_failed": 5}


def test_a_session_without_turns_asks_nothing():
    script = Script(say)
    read(system(), script, [dataclasses.replace(SESSIONS[0], turns=())])
    assert script.batches == []
