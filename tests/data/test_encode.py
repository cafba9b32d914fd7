"""Arrays against the dialogues and tuples that they came from."""

import jax
import numpy as np
import pytest

from memr1_jax.data import encode
from memr1_jax.data.locomo import load_conversations
from memr1_jax.data.own_dialogues import turns_as_facts
from memr1_jax.data.synthetic import generate
from memr1_jax.data.tuples import banks_before, manager_tuples
from memr1_jax.data.types import Conversation, Question, Session, Turn
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import empty_bank
from memr1_jax.memory.embedder import StaticVectors
from memr1_jax.text.normalize import words_of_text

SIZES = encode.Sizes(
    memory_width=8,
    bank_capacity=6,
    facts=2,
    questions=2,
    question_width=16,
    gold_words=8,
    gold_width=2,
)


class _Words:
    """A tokenizer of whole words that grows as it reads."""

    def __init__(self):
        self.ids = {}

    def __call__(self, text):
        return [self.ids.setdefault(word, len(self.ids) + 1) for word in text.split()]

    def read(self, tokens, length):
        words = {number: word for word, number in self.ids.items()}
        return [words[int(token)] for token in tokens[:length]]


@pytest.fixture(scope="module")
def words():
    return _Words()


@pytest.fixture(scope="module")
def encoder(words):
    table = np.random.default_rng(0).normal(size=(4096, 4)).astype(np.float32)
    return encode.Encoder(words, StaticVectors(table, np.float32(0)), SIZES)


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    import json

    path = tmp_path_factory.mktemp("data") / "data.json"
    records = generate(3, 1, 2, 5) + generate(4, 1, 3, 4)
    path.write_text(json.dumps(records))
    return load_conversations(path)


def _row(tree, *place):
    return jax.tree.map(lambda x: np.asarray(x)[place], tree)


def _texts(words, bank):
    return [
        words.read(bank.tokens[m], bank.length[m]) for m in range(len(bank.alive)) if bank.alive[m]
    ]


def test_manager_data_equal_their_tuples(words, encoder, conversations):
    tuples = [item for c in conversations for item in manager_tuples(c)]
    data = encode.encode_manager_data(encoder, conversations, tuples)
    assert data.rows == len(tuples) > 5
    cut = 0
    for row, item in enumerate(tuples):
        conversation = conversations[int(data.conversation[row])]
        assert conversation.id == item.conversation and data.speaker[row] == item.speaker
        pairs = [(data.own, item.banks[item.speaker]), (data.other, item.banks[1 - item.speaker])]
        for banks, facts in pairs:
            bank = _row(banks, row)
            kept = facts[: SIZES.bank_capacity]
            wanted = [fact.text.split()[: SIZES.memory_width] for fact in kept]
            assert _texts(words, bank) == wanted
            assert int(bank.refused) == len(facts) - len(kept)
            cut += int(bank.overflowed)
            assert int(bank.overflowed) == sum(
                len(fact.text.split()) > SIZES.memory_width for fact in kept
            )
            times = [conversation.sessions[int(t)].number for t in bank.created[: len(kept)]]
            assert times == [fact.session for fact in kept]
            sources = [conversation.turns[int(t)].dia_id for t in bank.source[: len(kept)]]
            assert sources == [fact.sources[-1] for fact in kept]
            keys = encoder.keys([fact.text for fact in kept] or [""])
            np.testing.assert_allclose(bank.key[: len(kept)], keys[: len(kept)], atol=1e-6)
        facts = _row(data.facts, row)
        read = [words.read(*pair) for pair in zip(facts.tokens, facts.length, strict=True)]
        texts = [fact.text.split()[: SIZES.memory_width] for fact in item.facts[: SIZES.facts]]
        assert read == texts + [[]] * (SIZES.facts - len(texts))
        assert conversation.sessions[int(facts.time)].number == item.session
        assert int(facts.source) == item.turn
        asked = item.questions[: SIZES.questions]
        assert list(data.asked[row]) == [True] * len(asked) + [False] * (
            SIZES.questions - len(asked)
        )
        for place, question in enumerate(asked):
            _assert_query(words, _row(data.queries, row, place), question)
    assert cut > 0


def _assert_query(words, query, question):
    assert words.read(query.tokens, query.length) == question.question.split()[:16]
    gold = question.answer.split()[: SIZES.gold_width]
    assert words.read(query.gold_tokens, query.gold_length) == gold
    gold = words_of_text(question.answer, SIZES.gold_words)
    jax.tree.map(np.testing.assert_array_equal, query.gold, gold)


def test_rows_are_cut_at_a_whole_character():
    begins = np.arange(256) >> 6 != 0b10  # tokens are the bytes of UTF-8
    encoder = encode.Encoder(lambda text: list(text.encode()), None, SIZES, begins)
    tokens, length = encoder.rows(["éééx", "xééé", "x王🎈", "xéé", "xx"], 5)
    texts = [bytes(row[:n].tolist()).decode() for row, n in zip(tokens, length, strict=True)]
    assert texts == ["éé", "xéé", "x王", "xéé", "xx"]


def test_scenes_hold_names_and_dates(words, encoder, conversations):
    scene = encode.encode_scenes(encoder, conversations)
    for row, conversation in enumerate(conversations):
        one = _row(scene, row)
        names = [words.read(*pair) for pair in zip(one.names, one.name_length, strict=True)]
        assert names == [name.split() for name in conversation.speakers]
        times = [words.read(*pair) for pair in zip(one.times, one.time_length, strict=True)]
        wanted = [session.time.split() for session in conversation.sessions]
        assert times == wanted + [[]] * (3 - len(wanted))


def test_answer_data_point_at_their_conversation(words, encoder, conversations):
    bank = empty_bank(SIZES.bank_capacity, SIZES.memory_width, 4)
    banks = jax.tree.map(lambda x: np.stack([x, x + 1]), (bank, bank))
    data = encode.encode_answer_data(encoder, conversations, banks)
    questions = [(i, q) for i, c in enumerate(conversations) for q in c.questions]
    assert data.rows == len(questions)
    rows = np.array([len(questions) - 1, 0])
    batch = jax.tree.map(np.asarray, jax.tree.map(jax.numpy.asarray, data)).select(
        rows, np.array([True, False])
    )
    for place, row in enumerate(rows):
        number, question = questions[row]
        assert data.conversation[row] == number
        _assert_query(words, _row(batch.query, place), question)
        assert (batch.banks[0].tokens[place] == number).all()
        jax.tree.map(
            np.testing.assert_array_equal,
            _row(batch.scene, place),
            _row(encode.encode_scenes(encoder, conversations), number),
        )
    assert list(batch.valid) == [True, False]


def test_a_batch_of_turns_is_those_turns(encoder, conversations):
    tuples = [item for c in conversations for item in manager_tuples(c)]
    data = encode.encode_manager_data(encoder, conversations, tuples)
    rows = np.array([len(tuples) - 1, 0, 0])
    batch = data.select(rows, np.ones(3, bool))
    for name in ("own", "other", "speaker", "facts", "queries", "asked"):
        picked = jax.tree.map(lambda x: np.asarray(x)[rows], getattr(data, name))
        jax.tree.map(np.testing.assert_array_equal, getattr(batch, name), picked)
    scene = jax.tree.map(lambda x: x[data.conversation[rows]], data.scene)
    jax.tree.map(np.testing.assert_array_equal, batch.scene, scene)


@pytest.mark.parametrize("most", [1, 4])
def test_streams_hold_every_noted_fact_once_in_order(conversations, most):
    for conversation in conversations:
        streams = encode.fact_streams(conversation, most)
        for name, stream in zip(conversation.speakers, streams, strict=True):
            noted = [fact for _, _, facts in stream for fact in facts]
            assert noted == [fact for fact in conversation.facts if fact.speaker == name]
            positions = [position for position, _, _ in stream]
            assert positions == sorted(positions)
            for position, session, facts in stream:
                assert 0 < len(facts) <= most
                assert {fact.sources[-1] for fact in facts} == {conversation.turns[position].dia_id}
                assert {fact.session for fact in facts} == {session}


def test_data_without_questions_are_refused(encoder, conversations):
    with pytest.raises(UserError, match="no turn to train the Memory Manager on"):
        encode.encode_manager_data(encoder, conversations, [])
    import dataclasses

    silent = [dataclasses.replace(c, questions=()) for c in conversations]
    with pytest.raises(UserError, match="hold no questions"):
        encode.encode_answer_data(encoder, silent, (None, None))


def test_final_banks_hold_what_the_gold_operations_leave(words, encoder, conversations):
    banks = encode.encode_final_banks(encoder, conversations)
    width, capacity, ended = SIZES.memory_width, SIZES.bank_capacity, 0
    for place, conversation in enumerate(conversations):
        held = banks_before(conversation, len(conversation.turns))
        ended += len(conversation.facts) - sum(map(len, held))
        for bank, facts in zip(banks, held, strict=True):
            kept = [fact.text.split()[:width] for fact in facts][:capacity]
            assert _texts(words, _row(bank, place)) == kept
    assert ended > 0  # else every noted fact would do as well


def test_a_turn_has_its_own_date_where_it_has_a_time(words, encoder):
    def turn(number, place, time=""):
        return Turn("KL"[place % 2], f"said {number} {place}", f"D{number}:{place}", time=time)

    sessions = (
        Session(1, "noon", (turn(1, 1, "noon"), turn(1, 2, "one"), turn(1, 3))),
        Session(2, "", (turn(2, 1, "one"), turn(2, 2))),
        Session(3, "noon", (turn(3, 1), turn(3, 2))),
    )
    question = Question("what", "x", 4, ("D1:2",), 0)
    talk = turns_as_facts(Conversation("c", ("K", "L"), sessions, (question,), ()))
    assert talk.dates == ("noon", "one", "", "one", "noon")
    assert talk.date_of_turn == (0, 1, 0, 3, 2, 4, 4)
    scene = _row(encode.encode_scenes(encoder, [talk]), 0)
    times = [words.read(*pair) for pair in zip(scene.times, scene.time_length, strict=True)]
    assert times == [["noon"], ["one"], [], ["one"], ["noon"]]
    banks = encode.encode_final_banks(encoder, [talk])
    for bank, turns in zip(banks, ((1, 4, 6), (0, 2, 3, 5)), strict=True):
        one = _row(bank, 0)
        held = {int(one.source[m]): int(one.updated[m]) for m in range(6) if one.alive[m]}
        assert held == {turn: talk.date_of_turn[turn] for turn in turns}
    data = encode.encode_manager_data(encoder, [talk], manager_tuples(talk))
    assert int(data.facts.time[0]) == 1 and int(data.facts.source[0]) == 1
