"""Facts out of sessions: two passes with swapped roles, two messages a call, turns as sources."""

import collections
import dataclasses

import pytest

from memr1_jax.bench.systems.extraction import (
    arrivals,
    extracted_facts,
    noted_facts,
    turn_facts,
    user_turn_facts,
)
from memr1_jax.bench.systems.management_prompts import extraction_prompt
from memr1_jax.bench.systems.protocol import together
from memr1_jax.data.types import Conversation, Fact, Session, Turn
from memr1_jax.errors import UserError
from tests.bench.systems.scripted import MAY, SESSIONS, SPEAKERS, Script, last


def facts_of(source, session, script, speakers=SPEAKERS):
    counts = collections.Counter()
    (facts,) = together([source(session, speakers, counts)], script)
    return facts, {name: value for name, value in counts.items() if value}


def say(call):
    text = last(call)
    if "Facts about Ann" in text:
        return '{"facts": ["Ann has a dog.", "Ann has\\n Rex.", "Ann has a dog."]}'
    return "rubbish" if "Oslo" in text else '{"facts": ["Ben drinks tea.", "Ben lik<cut>'


def test_two_passes_of_two_messages_in_one_batch():
    script = Script(say)
    facts, counts = facts_of(extracted_facts("compact"), SESSIONS[0], script)
    (batch,) = script.batches
    assert [last(call) for call in batch] == [
        f"Date: {MAY}\nuser: Ann: I adopted a dog, Rex.\nassistant: Ben: Nice! I moved to Oslo.\n"
        "Facts about Ann:",
        f"Date: {MAY}\nuser: Ann: I play chess.\nassistant: Ben: I drink tea.\nFacts about Ann:",
        f"Date: {MAY}\nassistant: Ann: I adopted a dog, Rex.\nuser: Ben: Nice! I moved to Oslo.\n"
        "Facts about Ben:",
        f"Date: {MAY}\nassistant: Ann: I play chess.\nuser: Ben: I drink tea.\nFacts about Ben:",
    ]
    first, second = ("D1:1", "D1:2"), ("D1:3", "D1:4")
    assert facts == [
        Fact("Ann", "Ann has a dog.", 1, first),
        Fact("Ann", "Ann has Rex.", 1, first),
        Fact("Ann", "Ann has a dog.", 1, second),
        Fact("Ann", "Ann has Rex.", 1, second),
        Fact("Ben", "Ben drinks tea.", 1, second),
    ]
    assert counts == {
        "facts": 5,
        "extract_read": 2,
        "extract_failed": 1,
        "extract_recovered": 1,
        "extract_cut": 1,
    }


@pytest.mark.parametrize("prompt", ["compact", "full"])
def test_a_chat_has_one_pass_and_no_system_messages(prompt):
    turns = (
        Turn("system", "Today is a holiday.", "D1:1"),
        Turn("user", "I like figs.\nAnd tea.", "D1:2"),
        Turn("assistant", "Noted.", "D1:3"),
    )
    script = Script(lambda call: '{"facts": ["The user likes figs."]}')
    session = Session(1, MAY, turns)
    facts, _ = facts_of(extracted_facts(prompt), session, script, ("user", "assistant"))
    assert facts == [Fact("user", "The user likes figs.", 1, ("D1:2", "D1:3"))]
    (call,) = script.calls
    assert "holiday" not in str(call.messages)
    assert "user: user: I like figs. And tea.\nassistant: assistant: Noted.\n" in last(call)
    assert MAY in last(call)


def test_facts_that_the_data_notes_are_those_of_the_session_alone():
    noted = (
        Fact("Ann", "Ann has a dog.", 1, ("D1:1",)),
        Fact("Ben", "Ben knows Ann's brother.", 2, ("D1:2", "D2:1")),
    )
    conversation = Conversation("c", SPEAKERS, SESSIONS, (), noted)
    source = noted_facts([conversation])
    assert facts_of(source, SESSIONS[0], None) == ([noted[0]], {"facts": 1})
    assert facts_of(source, SESSIONS[1], None) == ([noted[1]], {"facts": 1})
    stranger = dataclasses.replace(SESSIONS[0], time="noon")
    assert facts_of(source, stranger, None) == ([], {})


def test_turns_as_facts():
    facts, counts = facts_of(turn_facts, SESSIONS[1], None)
    assert facts == [
        Fact("Ann", "Ann: Rex lives with my brother now.", 2, ("D2:1",)),
        Fact("Ben", "Ben: I moved on to Bergen.", 2, ("D2:2",)),
    ]
    assert counts == {"facts": 2}
    assert facts_of(user_turn_facts, SESSIONS[1], None) == (facts, counts)


def test_of_a_chat_the_turns_of_the_user_alone():
    turns = (Turn("user", "I moved\nto Oslo.", "D1:1"), Turn("assistant", "How nice!", "D1:2"))
    session = Session(1, MAY, (Turn("system", "Be kind.", "D1:0"), *turns))
    facts, counts = facts_of(user_turn_facts, session, None, ("user", "assistant"))
    assert facts == [Fact("user", "user: I moved to Oslo.", 1, ("D1:1",))]
    assert counts == {"facts": 1}


def test_facts_with_the_same_latest_turn_arrive_together():
    facts = [
        Fact("Ann", "a", 1, ("D1:1",)),
        Fact("Ben", "b", 1, ("D1:1",)),
        Fact("Ann", "c", 1, ("D1:0", "D1:1")),
        Fact("Ann", "d", 1, ("D1:2",)),
    ]
    assert arrivals(facts, "Ann") == [(facts[0], facts[2]), (facts[3],)]


MINE = "role: extraction\n[user]\n{time}, {person}:\n{turns}\n[entry turns]\n<{text}>\n"


def test_a_prompt_of_ones_own_asks_for_facts(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(MINE)
    script = Script(lambda call: '{"facts": ["It rains."]}')
    facts, _ = facts_of(extracted_facts(str(path)), SESSIONS[0], script)
    assert {fact.text for fact in facts} == {"It rains."}
    first = SESSIONS[0].turns[0].content
    assert last(script.calls[0]).startswith(f"{MAY}, {SPEAKERS[0]}:\n<{first}>\n")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (MINE.replace("{person}", "all"), "has the slots"),
        (MINE.replace("<{text}>", "{time}"), r"needs a section \[entry turns\]"),
        (MINE.replace("role: extraction", "role: management"), "'role: extraction'"),
        (MINE.replace("role: extraction", "role: facts"), "has the role 'facts'"),
        (MINE.replace("role: extraction\n", ""), "has no role"),
    ],
)
def test_a_prompt_that_cannot_ask_for_facts_is_refused(tmp_path, source, complaint):
    path = tmp_path / "mine.txt"
    path.write_text(source)
    with pytest.raises(UserError, match=complaint):
        extraction_prompt(str(path))


def test_a_prompt_that_is_not_there_is_told():
    with pytest.raises(UserError, match="no prompt named 'fulll'; choose one of"):
        extraction_prompt("fulll")
