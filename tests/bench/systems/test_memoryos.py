"""MemoryOS: pages and what is lost of them, segments, heat, knowledge, and what is shown."""

import collections
import json
import math

import numpy as np
import pytest

from memr1_jax.bench.systems.memoryos import MemoryOSSystem
from memr1_jax.bench.systems.memoryos_parts import Segment, overlap, pages_of
from memr1_jax.data.types import Session, Turn
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

TOPICS = {
    "adopted": [{"theme": "x", "keywords": ["dog", "Rex"], "summary": "The dog Rex comes."}],
    "chess": "unreadable",
    "brother": [
        {"theme": "y", "keywords": ["Dog", "rex"], "summary": "The dog Rex goes."},
        {"theme": "z", "keywords": ["Bergen"], "summary": "Ben moves to Bergen."},
        {"theme": "too many", "keywords": [], "summary": "A third subject."},
    ],
}


def say(call):
    text = last(call)
    if call.stage == "topics":
        topics = next(t for word, t in TOPICS.items() if word in text)
        return topics if isinstance(topics, str) else json.dumps({"topics": topics})
    return {
        "continuity": json.dumps({"continues": "chess" in text.partition("Second")[2]}),
        "chain_summary": '{"summary": "They talk."}',
        "profile": '{"profile": "Ann is kind."}',
        "profile_merge": '{"profile": "Ann is kind and calm."}',
        "knowledge": '{"first": ["Ann has a dog."], "second": ["Ben drinks tea.", "Ben moves."]}',
        "query": '{"keywords": ["Rex", "dog"]}',
        "answer": "**Answer:** brother",
    }[call.stage]


def system(**options):
    return MemoryOSSystem("memory_os", embed, stage(), **options)


PAGES = [
    ("Ann: I adopted a dog, Rex. Ben: Nice! I moved to Oslo.", MAY, "", ("D1:1", "D1:2")),
    ("Ann: I play chess. Ben: I drink tea.", MAY, "", ("D1:3", "D1:4")),
    ("Ann: Rex lives with my brother now. Ben: I moved on to Bergen.", JUNE, "", ("D2:1", "D2:2")),
]
TURNS = [Turn(who, text, f"D1:{n}") for n, (who, text) in enumerate([
    ("Ben", "b0"), ("Ann", "a1"), ("Ann", "a2"), ("Ben", "b3"), ("Ben", "b4"), ("Ann", "a5"),
])]  # fmt: skip


def test_pages_as_in_the_original_lose_turns():
    counts = collections.Counter()
    pages = pages_of(TURNS, "Ann", lambda turn: "noon", False, counts)
    assert [(page.text, page.sources) for page in pages] == [("Ann: a2 Ben: b4", ("D1:2", "D1:4"))]
    assert counts == {"pages": 1, "pages_dropped": 2, "turns_dropped": 4}


def test_unpaired_pages_can_be_kept():
    counts = collections.Counter()
    pages = pages_of(TURNS, "Ann", lambda turn: "noon", True, counts)
    assert [page.text for page in pages] == [
        "Ben: b0",
        "Ann: a1 Ann: a2 Ben: b3 Ben: b4",
        "Ann: a5",
    ]
    assert +counts == {"pages": 3}


def test_heat_is_fresh_pages_and_recency():
    segment = Segment("", frozenset(), np.zeros(1), (1, 2, 3), (2, 3), latest=4)
    assert segment.heat(4) == 3
    assert segment.heat(6) == pytest.approx(2 + math.exp(-2))


def test_overlap_is_the_share_of_common_words():
    assert overlap(frozenset("ab"), frozenset("bc")) == pytest.approx(1 / 3)
    assert overlap(frozenset(), frozenset()) == 0


def test_a_page_waits_in_the_queue_then_moves_on():
    script = Script(say)
    store = read(system(queue=2), script)
    assert script.stages() == [["topics"], ["chain_summary"]]
    text, time, owner, sources = PAGES[0]
    assert held(store) == [(f"{text} (context: They talk.)", time, owner, sources), *PAGES[1:]]
    assert counted(store) == {
        "pages": 3,
        "topics_read": 1,
        "chain_summary_read": 1,
        "segments": 1,
    }


def test_segments_join_and_lost_pages_are_counted():
    script = Script(say)
    farewell = Session(3, JUNE, (Turn("Ann", "Bye.", "D3:1"), Turn("Ben", "Bye.", "D3:2")))
    store = read(system(queue=1), script, (*SESSIONS, farewell))
    # The page about chess was lost with its topics, the last one waits in the queue.
    context = " (context: They talk.)"
    assert [memory.text for memory in store.memories()] == [
        PAGES[0][0] + context,
        PAGES[2][0] + context,
        "Ann: Bye. Ben: Bye.",
    ]
    # Summaries of the dog share 3 of 4 words, and all keywords but for their case.
    assert counted(store) == {
        "pages": 4,
        "topics_read": 2,
        "topics_failed": 1,
        "continuity_read": 2,
        "continued": 1,
        "chain_summary_read": 3,
        "segments": 2,
        "segments_joined": 1,
        "pages_lost": 1,
    }
    second = next(c for c in script.calls if c.stage == "chain_summary" and "chess" in last(c))
    assert "Summary so far: They talk." in last(second)
    third = next(c for c in script.calls if c.stage == "chain_summary" and "brother" in last(c))
    assert "Summary so far: \n" in last(third)


def test_pages_without_a_summary_can_be_kept():
    store = read(system(queue=1, keep_unsummarised=True), Script(say), SESSIONS)
    assert [m.sources for m in store.memories()] == [page[3] for page in PAGES]
    assert store.counts["pages_lost"] == 0


def test_hot_segments_yield_profile_and_knowledge_once():
    script = Script(say)
    options = {"queue": 1, "hot": 2.0, "keep_unsummarised": True, "knowledge": 3}
    store = read(system(**options), script, (*SESSIONS, SESSIONS[1]))
    assert store.counts["drawn"] == 3
    memories = {m.text: m for m in store.memories()}
    profile = memories["Ann is kind and calm."]
    assert (profile.owner, profile.time) == ("Ann", JUNE)
    assert profile.sources == ("D1:1", "D1:2", "D1:3", "D1:4", "D2:1", "D2:2")
    # Three pages gave one fact about Ann and two about Ben each; three are kept.
    known = [m for m in store.memories() if m.text.startswith(("Ann has", "Ben "))]
    assert [(m.owner, m.sources) for m in known] == [
        ("Ann", ("D1:1", "D1:2")),
        ("Ann", ("D1:3", "D1:4")),
        ("Ann", ("D2:1", "D2:2")),
        ("Ben", ("D1:3", "D1:4")),
        ("Ben", ("D2:1", "D2:2")),
        ("Ben", ("D2:1", "D2:2")),
    ]
    assert (store.counts["knowledge"], store.counts["knowledge_dropped"]) == (9, 3)
    assert ["profile", "knowledge"] in script.stages()


def test_an_unreadable_merge_loses_no_profile():
    def broken(call):
        return "?" if call.stage == "profile_merge" else say(call)

    options = {"queue": 1, "hot": 2.0, "keep_unsummarised": True}
    store = read(system(**options), Script(broken))
    assert store.memories()[0].text == "Ann is kind. Ann is kind."
    assert store.counts["profile_merge_failed"] == 1


def test_the_coldest_segment_makes_room():
    options = {"queue": 1, "segments": 1, "keep_unsummarised": True}
    store = read(system(**options), Script(say))
    assert [m.sources for m in store.memories()] == [PAGES[1][3], PAGES[2][3]]
    assert (store.counts["segments_evicted"], store.counts["pages_lost"]) == (1, 1)


def test_the_answer_is_shown_all_tiers():
    script = Script(say)
    store = read(system(queue=1, hot=2.0, pages_shown=1, knowledge_shown=1), script)
    before = held(store)
    answer = reply(store, script)
    assert script.stages()[-2:] == [["query"], ["answer"]]
    assert [memory.sources for memory in answer.memories[-1:]] == [PAGES[2][3]]  # the queue
    assert answer.memories[0].text == "Ann is kind."
    assert {m.text for m in answer.memories[1:3]} >= {f"{PAGES[0][0]} (context: They talk.)"}
    assert len(answer.memories) == 4
    assert held(store) == before


def test_rubbish_is_counted_and_harmless():
    store = read(system(queue=1), Script(lambda call: '{"topics": 3, "continues": "maybe", "x'))
    assert [m.sources for m in store.memories()] == [PAGES[2][3]]
    assert store.counts["pages_lost"] == 2
    assert store.counts["chain_summary_failed"] == 2
