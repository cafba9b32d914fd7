import dataclasses

import pytest

from memr1_jax.data.encode import fact_streams
from memr1_jax.data.locomo import load_conversations
from memr1_jax.data.tuples import (
    banks_before,
    facts_of_turn,
    linked_questions,
    manager_tuples,
    outdated_places,
)
from memr1_jax.data.types import Conversation, Fact, GoldOperation, Question, Session, Turn
from memr1_jax.text.events import Event


def _texts(facts):
    return [fact.text for fact in facts]


def _dialogue(operations=()):
    """Returns twelve alternating turns; the second and ninth facts concern the silent speaker."""
    turns = tuple(Turn("AB"[i % 2], f"t{i}", f"D1:{i + 1}") for i in range(12))
    told = {0: "A", 1: "A", 3: "B", 4: "A", 8: "B", 9: "B"}
    facts = tuple(Fact(who, f"f{i}", 1, (f"D1:{i + 1}",)) for i, who in told.items())
    asked = {"last": ("D1:2", "D1:10"), "same": ("D1:10",), "early": ("D1:1",), "none": ()}
    questions = tuple(Question(q, "x", 4, e, i) for i, (q, e) in enumerate(asked.items()))
    sessions = (Session(1, "9:05 am on 1 June, 2023", turns),)
    return Conversation("c", ("A", "B"), sessions, questions, facts, operations)


def test_a_question_belongs_to_its_last_evidence_or_to_each():
    linked = {
        link: {
            turn: [q.question for q in questions]
            for turn, questions in linked_questions(_dialogue(), link).items()
        }
        for link in ("last", "any")
    }
    assert linked == {
        "last": {0: ["early"], 9: ["last", "same"]},
        "any": {0: ["early"], 1: ["last"], 9: ["last", "same"]},
    }
    with pytest.raises(ValueError, match="'first'"):
        manager_tuples(_dialogue(), link="first")
    items = manager_tuples(_dialogue(), link="any")
    assert {i.turn: [q.question for q in i.questions] for i in items} == linked["any"]


def test_banks_hold_the_window_strictly_before_the_turn():
    dialogue = _dialogue()
    item = manager_tuples(dialogue, window=6)[-1]
    assert (item.speaker, item.session, item.dia_id) == (1, 1, "D1:10")
    assert _texts(item.facts) == ["f9"]
    # The window of turn 9 is turns 3 to 8: its own fact stays out, and so does that of turn 1.
    assert [_texts(bank) for bank in item.banks] == [["f4"], ["f3", "f8"]]
    everything = manager_tuples(dialogue, window=None)[-1]
    assert [_texts(bank) for bank in everything.banks] == [["f0", "f1", "f4"], ["f3", "f8"]]
    first = manager_tuples(dialogue)[0]
    assert first.banks == ((), ())


def test_a_turn_that_tells_of_the_other_speaker_alone_edits_that_bank():
    item = manager_tuples(_dialogue(), link="any")[1]
    assert (item.turn, item.speaker, _texts(item.facts)) == (1, 0, ["f1"])


def test_a_turn_without_a_noted_fact_is_left_out():
    dialogue = _dialogue()
    dialogue = dataclasses.replace(
        dialogue, facts=tuple(fact for fact in dialogue.facts if fact.text != "f9")
    )
    assert [item.turn for item in manager_tuples(dialogue)] == [0]
    assert list(linked_questions(dialogue)) == [0, 9] and facts_of_turn(dialogue, 9) == ()


@pytest.mark.parametrize("link", ["last", "any"])
def test_training_shows_what_reading_a_dialogue_shows(locomo, link):
    """Checks that a manager learns only from facts that it meets when banks are built."""
    for conversation in locomo:
        streams = fact_streams(conversation, most=10**6)
        shown = {
            (speaker, turn, session, facts)
            for speaker, stream in enumerate(streams)
            for turn, session, facts in stream
        }
        for item in manager_tuples(conversation, link=link):
            assert (item.speaker, item.turn, item.session, item.facts) in shown


def test_a_fact_waits_for_the_last_of_its_sources(write, sample):
    (conversation,) = load_conversations(write([sample]))
    # "Kim and Lou both have boats." comes from D1:2 and D1:3, so D1:2 does not know it yet.
    by_turn = {item.dia_id: item for item in manager_tuples(conversation, link="any")}
    assert _texts(by_turn["D1:2"].facts) == ["Lou has three boats."]
    assert _texts(by_turn["D1:3"].facts) == ["Kim and Lou both have boats."]
    assert [_texts(bank) for bank in by_turn["D1:3"].banks] == [[], ["Lou has three boats."]]
    # The observation on D2:2 is filed under Kim although Lou speaks.
    assert _texts(by_turn["D2:2"].facts) == ["Lou likes maps."] and by_turn["D2:2"].speaker == 0
    assert "Lou likes maps." in _texts(by_turn["D10:2"].banks[0])


def test_gold_operations_decide_what_a_bank_holds():
    operations = (
        GoldOperation(Event.ADD, 0, "f0"),
        GoldOperation(Event.UPDATE, 1, "f1", replaces=0),
        GoldOperation(Event.ADD, 2, "f3"),
        GoldOperation(Event.NONE, 3),
        GoldOperation(Event.DELETE, 4, replaces=2),
        GoldOperation(Event.ADD, 5, "f9"),
    )
    dialogue = _dialogue(operations)
    banks = {position: banks_before(dialogue, position) for position in (1, 2, 8, 9, 12)}
    assert {p: [_texts(bank) for bank in pair] for p, pair in banks.items()} == {
        1: [["f0"], []],
        2: [["f1"], []],
        8: [["f1"], ["f3"]],
        9: [["f1"], []],
        12: [["f1"], ["f9"]],
    }


def test_what_evidence_replaced_is_outdated_however_often_it_was_replaced():
    operations = (
        GoldOperation(Event.ADD, 0, "f0"),
        GoldOperation(Event.UPDATE, 1, "f1", replaces=0),
        GoldOperation(Event.NONE, 2),
        GoldOperation(Event.UPDATE, 3, "f4", replaces=1),
        GoldOperation(Event.DELETE, 4, replaces=3),
        GoldOperation(Event.ADD, 5, "f9"),
    )

    def outdated(dialogue, *facts):
        evidence = tuple(dialogue.facts[fact].sources[0] for fact in facts)
        return outdated_places(dialogue, Question("?", "!", 4, evidence, 0))

    told = _dialogue(operations)
    assert outdated(told, 3) == (0, 1)
    assert outdated(told, 1) == outdated(told, 1, 5) == (0,)
    assert outdated(told, 0) == outdated(told, 5) == outdated(_dialogue(), 3) == ()


def test_the_banks_after_the_last_turn_hold_the_whole_dialogue():
    dialogue = _dialogue()
    banks = banks_before(dialogue, len(dialogue.turns))
    assert [_texts(bank) for bank in banks] == [["f0", "f1", "f4"], ["f3", "f8", "f9"]]


@pytest.mark.parametrize(
    ("name", "link", "turns", "pairs", "noted"),
    [
        ("conv-26", "last", 113, 150, 78),
        ("conv-26", "any", 133, 203, 92),
        ("conv-30", "last", 66, 81, 47),
        ("conv-30", "any", 74, 106, 50),
    ],
)
def test_the_published_numbers_of_tuples(locomo, name, link, turns, pairs, noted):
    """Counts evidence turns, their questions, and the turns with an observation."""
    (conversation,) = [c for c in locomo if c.id == name]
    linked = linked_questions(conversation, link)
    assert (len(linked), sum(map(len, linked.values()))) == (turns, pairs)
    items = manager_tuples(conversation, link=link)
    assert len(items) == noted and all(linked[item.turn] == item.questions for item in items)
    for item in items:
        start = item.turn - 50
        for bank, speaker in zip(item.banks, conversation.speakers, strict=True):
            assert all(fact.speaker == speaker for fact in bank)
            positions = [conversation.positions[s] for fact in bank for s in fact.sources[-1:]]
            assert all(start <= position < item.turn for position in positions)
            assert all(conversation.positions[s] < item.turn for f in bank for s in f.sources)
