"""Rows that store what they read: what is kept, what is found, what is shown."""

import dataclasses

import numpy as np
import pytest

from memr1_jax.agents.prompt_files import read_prompt
from memr1_jax.bench.systems import ranking, units
from memr1_jax.bench.systems.answer_stage import AnswerStage
from memr1_jax.bench.systems.protocol import Memory, Reply, together
from memr1_jax.bench.systems.verbatim import ReadingSystem
from memr1_jax.data.types import Conversation, Fact, Question, Session, Turn

SPEAKERS = ("Ann", "Ben")
FIRST = Session(
    1,
    "1 May, 2023",
    (
        Turn("Ann", "I adopted a dog.", "D1:1"),
        Turn("Ben", "What is his\nname?", "D1:2", caption="a wet dog"),
        Turn("Ann", "Rex!", "D1:3"),
    ),
)
SECOND = Session(2, "9 June, 2023", (Turn("Ben", "I moved to Oslo.", "D2:1"),))
WHERE = Question("Who moved to Oslo?", "Oslo", 4, ("D2:1",), 0)
DOG = Question("Whose dog is wet?", "Ann's", 4, ("D1:1", "D1:3"), 1)
FACTS = (Fact("Ann", "Ann has a dog.", 1, ("D1:1", "D1:3")), Fact("Ben", "Ben left.", 2, ("D2:1",)))
TALK = Conversation("talk", SPEAKERS, (FIRST, SECOND), (WHERE, DOG), FACTS)
STAGE = AnswerStage(read_prompt("answer_compact"), lambda text: len(text.split()), room=10**6)
VOCABULARY = ("dog", "oslo", "move", "rex", "wet")


def count(text):
    return len(text.split())


def embed(texts):
    return np.array([[word in text.lower() for word in VOCABULARY] for text in texts], np.float32)


def ask(system, question=WHERE):
    """Returns the memories that are shown, and the last message."""
    store = system.start(SPEAKERS)
    seen = []

    def run(calls):
        seen.extend(calls)
        return [Reply("**Answer:** Oslo", 1, 1, True, 0.0) for _ in calls]

    for session in TALK.sessions:
        together([store.ingest(session)], run)
    (answer,) = together([store.answer(question)], run)
    assert answer.answer == "Oslo"
    (call,) = seen
    return [memory.text for memory in answer.memories], call.messages[-1][1]


def system(chosen, **changes):
    made = ReadingSystem("test", units.turns, chosen, STAGE)
    return dataclasses.replace(made, **changes)


def test_turns_tell_who_said_what():
    memories = units.turns(FIRST)
    assert memories[1] == Memory(
        'Ben said, "What is his name? [shared: a wet dog]"', "1 May, 2023", "Ben", ("D1:2",)
    )


def test_the_question_alone_and_everything():
    shown, text = ask(system(ranking.nothing))
    assert shown == []
    assert text.count("(empty)") == 2
    shown, text = ask(system(ranking.everything, chronological=True))
    assert len(shown) == 4
    assert text.index("Rex!") < text.index("Memories of Ben") < text.index("I moved to Oslo")


def test_the_newest_that_fit():
    tokens = count('Ben said, "I moved to Oslo."') + count('Ann said, "Rex!"')
    for room, texts in ((tokens, ["Rex!", "Oslo"]), (tokens - 1, ["Oslo"])):
        shown, _ = ask(system(ranking.newest(room, count), chronological=True))
        assert [any(t in memory for t in texts) for memory in shown] == [True] * len(texts)


def test_the_oracle_shows_the_evidence():
    shown, _ = ask(system(ranking.evidence), DOG)
    assert shown == ['Ann said, "I adopted a dog."', 'Ann said, "Rex!"']


@pytest.mark.parametrize("find", [ranking.bm25, lambda k: ranking.dense(k, embed)])
def test_search_puts_the_best_first(find):
    shown, _ = ask(system(find(1)))
    assert shown == ['Ben said, "I moved to Oslo."']
    shown, _ = ask(system(find(2)), DOG)
    assert shown[0].startswith('Ben said, "What is his')


def test_observations_come_with_their_session():
    read = units.observations([TALK])
    assert read(FIRST) == [Memory("Ann has a dog.", "1 May, 2023", "Ann", ("D1:1", "D1:3"))]
    assert read(dataclasses.replace(FIRST, turns=FIRST.turns[:2])) == []  # not yet noted
    shown, text = ask(system(ranking.dense(1, embed), read=read), DOG)
    assert shown == ["Ann has a dog."]
    assert "Memories of Ben:\n(empty)" in text


def test_summaries_belong_to_nobody():
    read = units.summaries([TALK], {"talk": {1: "They speak of a dog.", 2: ""}})
    shown, text = ask(system(ranking.everything, read=read))
    assert shown == ["They speak of a dog."]
    assert "Memories of Ann and Ben" in text
    assert read(FIRST)[0].sources == ("D1:1", "D1:2", "D1:3")


def test_chunks_are_whole_turns():
    memories = [*units.turns(FIRST), *units.turns(SECOND)]
    sizes = [count(memory.text) for memory in memories]
    made = units.chunks(sizes[0] + sizes[1], count)(memories)
    assert [chunk.sources for chunk in made] == [("D1:1", "D1:2"), ("D1:3", "D2:1")]
    assert [chunk.time for chunk in made] == ["1 May, 2023"] * 2
    assert made[1].text == 'Ann said, "Rex!" Ben said, "I moved to Oslo."'
    assert len(units.chunks(1, count)(memories)) == 4


def test_times_are_dealt_out_anew():
    memories = [Memory(f"{n}", f"day {n // 2}", "Ann", (f"D{n}",)) for n in range(12)]
    dealt = units.shuffled_times(0)(memories)
    assert [m.text for m in dealt] == [m.text for m in memories]
    assert sorted(m.time for m in dealt) == sorted(m.time for m in memories)
    assert [m.time for m in dealt] != [m.time for m in memories]
    assert all(dealt[n].time == dealt[n + 1].time for n in range(0, 12, 2))
    assert dealt == units.shuffled_times(0)(memories)


def test_rerankers_order_and_thin():
    memories = [Memory(text, "") for text in ("It rains.", "A wet dog ran.", "The dog slept.")]
    wanted = [memories[1], memories[2]]
    assert ranking.bm25_reranker(2)(DOG.question, memories) == wanted
    assert ranking.dense_reranker(2, embed)(DOG.question, memories) == wanted
    assert ranking.bm25_reranker(2)(DOG.question, []) == []
    stage = dataclasses.replace(STAGE, rerank=ranking.bm25_reranker(1))
    shown, _ = ask(system(ranking.everything, stage=stage), DOG)
    assert shown == ['Ben said, "What is his name? [shared: a wet dog]"']
