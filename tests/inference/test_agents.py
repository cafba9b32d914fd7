"""Agents from Python: the same banks as ingestion's, the same answers as evaluation's."""

import dataclasses

import jax
import numpy as np
import pytest

from memr1_jax.agents.ingest import ingest
from memr1_jax.data.encode import encode_answer_data
from memr1_jax.data.own_dialogues import turns_as_facts
from memr1_jax.data.types import Conversation, Question, Session, Turn
from memr1_jax.errors import UserError
from memr1_jax.evals.answering import predict
from memr1_jax.inference.loading import load
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.text.events import Event

TIMES = ("8 May 2023", "1 June 2023")
TALK = [
    [("Ana", "I live in Oslo."), ("Ben", "I bake bread."), ("Ana", "Rex is my dog.")],
    [("Ana", "I moved to Bergen."), ("Ben", "I lost my job."), ("Ben", "Rex bit me!")],
]
QUESTIONS = ["Where does Ana live?", "Who was bitten?"]


def said(speakers=("Ana", "Ben")):
    """Returns the turns of both sessions, told by some speakers."""
    names = dict(zip(("Ana", "Ben"), speakers, strict=True))
    return [
        (names[who], text, time)
        for time, talk in zip(TIMES, TALK, strict=True)
        for who, text in talk
    ]


def conversation():
    sessions = tuple(
        Session(
            number,
            time,
            tuple(Turn(who, text, f"D{number}:{i}") for i, (who, text) in enumerate(talk, 1)),
        )
        for number, (time, talk) in enumerate(zip(TIMES, TALK, strict=True), 1)
    )
    questions = tuple(Question(text, "", 0, (), i) for i, text in enumerate(QUESTIONS))
    return turns_as_facts(Conversation("c", ("Ana", "Ben"), sessions, questions, ()))


@pytest.fixture(scope="module")
def agents():
    """Returns the nano model, which writes memories where random weights would not."""
    return load(resolve_model("nano"), bank_capacity=8)


@pytest.fixture(scope="module")
def remembered(agents):
    return agents.remember_all([(said(), None)])[0]


@pytest.fixture(scope="module")
def ingested(agents):
    bench = agents.pair
    params = agents.models.manager.params
    return ingest(agents._ingest_turn, params, bench.tools, bench.encoder, [conversation()])


def same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_the_banks_are_those_of_ingestion_token_for_token(remembered, ingested):
    memories = remembered.memories
    for bank, stacked in zip(memories.banks, ingested.banks, strict=True):
        same(bank, jax.tree.map(lambda x: x[0], stacked))
    assert len(memories) > 0
    assert memories.speakers == ("Ana", "Ben")
    assert memories.times == conversation().dates == TIMES
    assert memories.turns == 6


def test_decisions_say_what_was_told_written_and_changed(remembered, ingested):
    decisions = remembered.decisions
    assert [d.turn for d in decisions] == [0, 1, 2, 3, 4, 5]
    assert [d.speaker for d in decisions] == [who for who, *_ in said()]
    assert decisions[3].facts == ("Ana: I moved to Bergen.",)
    assert all("Ana: I moved" in d.prompt for d in decisions[3:4]) and all(
        d.readable and d.output for d in decisions
    )
    # Played back, the changes give the banks.
    held = {"Ana": {}, "Ben": {}}
    for decision in decisions:
        bank = held[decision.speaker]
        for change in decision.changes:
            assert bank.get(change.slot, "") == change.before
            if change.event is Event.DELETE:
                del bank[change.slot]
            else:
                bank[change.slot] = change.after
    found = {"Ana": {}, "Ben": {}}
    for memory in remembered.memories:
        found[memory.speaker][memory.slot] = memory.text
    assert held == found


def test_reading_on_equals_reading_at_once(agents, remembered):
    turns = said()
    first = agents.remember(turns[:3])
    kept = jax.tree.map(np.copy, first.banks)
    second = agents.remember(turns[3:], first)
    same(first.banks, kept)  # what was there before is left as it was
    same(second.banks, remembered.memories.banks)
    assert str(second) == str(remembered.memories)
    assert (second.times, second.turns) == (TIMES, 6)


def test_conversations_together_equal_one_by_one(agents, remembered):
    other = said(("Mei", "Keiko"))[:4]
    both = agents.remember_all([(said(), None), (other, None), ([], None)])
    same(both[0].memories.banks, remembered.memories.banks)
    assert both[0].decisions == remembered.decisions
    (alone,) = agents.remember_all([(other, None)])
    same(both[1].memories.banks, alone.memories.banks)
    assert both[1].decisions == alone.decisions
    assert len(both[2].memories) == 0 and both[2].decisions == ()


def test_answers_are_those_of_evaluation(agents, remembered, ingested):
    bench, told = agents.pair, conversation()
    data = jax.device_put(encode_answer_data(bench.encoder, [told], ingested.banks))
    predictions = predict(
        agents._answer,
        agents.models.answerer.params,
        bench.tools,
        data,
        [("c", question) for question in told.questions],
        agents.tokenizer,
        batch=2,
    )
    answers = agents.answer_all([(text, remembered.memories) for text in QUESTIONS])
    assert [a.response for a in answers] == [p.response for p in predictions]
    assert [a.answer for a in answers] == [p.answer for p in predictions]
    for text, found in zip(QUESTIONS, answers, strict=True):
        assert text in found.prompt
        assert set(found.shown) <= set(remembered.memories) and found.shown
        assert all(memory.text in found.prompt for memory in found.shown)
        assert set(found.picked) <= set(found.shown)


def test_a_bank_grows_rather_than_refuse(agents):
    empty = agents.empty()
    small = [jax.tree.map(lambda x: x[:2] if np.ndim(x) else x, bank) for bank in empty.banks]
    turns = [("Ana" if i % 2 else "Ben", f"I saw {i} cats.") for i in range(10)]
    memories = agents.remember(turns, dataclasses.replace(empty, banks=tuple(small)))
    for bank in memories.banks:
        assert len(bank.alive) == 4 * 2  # of 5 turns each
        assert bank.refused == 0
    assert memories.turns == 10
    more = agents.remember([("Ana", "I sleep."), ("Ben", "So do I.")], memories)
    assert more.turns == 12 and len(more.banks[0].alive) == 8  # there is room


def test_memories_print_as_a_table(agents, remembered):
    memories = remembered.memories
    heads, rule, *rows = str(memories).splitlines()
    assert heads.split() == ["slot", "speaker", "memory", "written", "changed"]
    assert set(rule) == {"-", " "} and len(rows) == len(memories) == len(list(memories))
    for row, memory in zip(rows, memories, strict=True):
        assert row.split()[:2] == [str(memory.slot), memory.speaker]
        assert memory.written in TIMES and memory.written in row
    assert str(agents.empty()) == "(no memories)"


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([("Ana", "Hi."), ("Ben", "Hi."), ("Cem", "Hi.")], "3 speakers .Ana, Ben, Cem."),
        (["Hello."], "A turn is"),
        ([("Ana",)], "A turn is"),
        ([("Ana", 5)], "A turn is"),
        ([("Ana", "Hi.", None)], "A turn is"),
        ([7], "A turn is"),
        ([(" ", "Hi.")], "does not say who speaks"),
    ],
)
def test_wrong_turns_are_told_in_a_sentence(agents, turns, message):
    with pytest.raises(UserError, match=message):
        agents.remember(turns)


def test_a_third_speaker_is_refused_later_too(agents, remembered):
    with pytest.raises(UserError, match="3 speakers"):
        agents.remember([("Cem", "Hi.")], remembered.memories)


def test_turns_that_say_nothing_change_nothing(agents):
    found = agents.remember_all([([("Ana", " \n "), ("Ben", "")], None)])[0]
    assert len(found.memories) == 0 and found.decisions == () and found.memories.turns == 2


@pytest.mark.parametrize("question", ["", "  \n", None, 3])
def test_a_question_is_a_text(agents, remembered, question):
    with pytest.raises(UserError, match="A question is a text"):
        agents.answer(question, remembered.memories)


def test_memories_of_other_agents_are_refused(agents, remembered):
    bank = remembered.memories.banks[0]
    narrow = bank.replace(tokens=bank.tokens[:, :5])
    other = dataclasses.replace(remembered.memories, banks=(narrow, narrow))
    for use in (
        lambda: agents.remember(said(), other),
        lambda: agents.answer(QUESTIONS[0], other),
    ):
        with pytest.raises(UserError, match="other agents"):
            use()
