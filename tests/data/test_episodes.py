"""Episodes: which turns, which banks, which questions, and their form as arrays."""

import dataclasses

import numpy as np
import pytest
from tiny_model import make_tiny

from memr1_jax.data.batches import EpisodeData
from memr1_jax.data.episodes import encode_episodes, episodes, left_out_of_episodes
from memr1_jax.data.types import Conversation, Fact, GoldOperation, Question, Session, Turn
from memr1_jax.errors import UserError
from memr1_jax.text.events import Event

EVIDENCE = {
    "first": ("D1:1",),
    "both": ("D1:1", "D1:4"),
    "late": ("D1:4", "D1:9"),
    "last": ("D1:9", "D1:10"),
    "chat": ("D1:6",),  # a turn without a noted fact
    "none": (),
}


def _dialogue(operations=()):
    """Makes ten alternating turns; facts of 1, 2, 4 (two speakers), 9 (two facts) and 10."""
    turns = tuple(Turn("AB"[i % 2], f"t{i + 1}", f"D1:{i + 1}") for i in range(10))
    told = [("A", 1), ("A", 2), ("B", 4), ("A", 4), ("A", 9), ("A", 9), ("B", 10)]
    facts = tuple(Fact(who, f"{who}{i}", 1, (f"D1:{i}",)) for who, i in told)
    questions = tuple(Question(q, "x", 4, e, i) for i, (q, e) in enumerate(EVIDENCE.items()))
    sessions = (Session(1, "9:05 am on 1 June, 2023", turns),)
    return Conversation("c", ("A", "B"), sessions, questions, facts, operations)


def _shape(episode):
    """Returns speaker, position and facts of each turn; questions with the turn they are due at."""
    turns = [(t.speaker, t.turn, "".join(f.text for f in t.facts)) for t in episode.turns]
    names = [question.question for question in episode.questions]
    return turns, dict(zip(names, episode.due, strict=True))


def _local(episode):
    return [[question.question for question in turn.questions] for turn in episode.turns]


def test_both_speakers_are_interleaved_and_turns_without_facts_left_out():
    (whole,) = episodes(_dialogue(), 0, 2)
    turns, due = _shape(whole)
    assert turns == [
        *[(0, 0, "A1"), (0, 1, "A2"), (0, 3, "A4"), (1, 3, "B4"), (0, 8, "A9A9"), (1, 9, "B10")]
    ]
    assert due == {"first": 0, "both": 3, "late": 4, "last": 5}
    assert whole.banks == ((), ())
    assert _local(whole) == [["first"], [], [], ["both"], ["late"], ["last"]]
    (whole,) = episodes(_dialogue(), 0, 2, link="any")
    bears = [["first", "both"], [], [], ["both", "late"], ["late", "last"], ["last"]]
    assert _local(whole) == bears


def test_a_turn_of_many_facts_counts_several_times():
    (whole,) = episodes(_dialogue(), 0, 1)
    turns, due = _shape(whole)
    assert [text for _, _, text in turns] == ["A1", "A2", "A4", "B4", "A9", "A9", "B10"]
    assert due["late"] == 5  # after the second of the two facts


def test_a_question_needs_all_of_its_evidence_in_the_episode():
    first, second = episodes(_dialogue(), 4, 2)
    assert _shape(first)[1] == {"first": 0, "both": 3}
    assert len(second.turns) == 2 and _shape(second)[1] == {"last": 1}
    # "both" spans two of three episodes; the last but one has no question at all.
    parts = episodes(_dialogue(), 2, 2)
    assert [_shape(part)[1] for part in parts] == [{"first": 0}, {"last": 1}]


def test_banks_that_start_with_facts_hold_a_part_of_the_evidence():
    first, second = episodes(_dialogue(), 4, 2, start="facts")
    assert first.banks == ((), ())
    assert [[fact.text for fact in bank] for bank in second.banks] == [["A1", "A2", "A4"], ["B4"]]
    assert _shape(second)[1] == {"late": 0, "last": 1}  # not those that the bank answers alone
    with pytest.raises(ValueError, match="'gold'"):
        episodes(_dialogue(), 4, 2, start="gold")


def test_a_dialogue_with_gold_operations_ends_with_its_episode():
    operations = tuple(GoldOperation(Event.ADD, fact, f"f{fact}") for fact in range(7))
    (only,) = episodes(_dialogue(operations), 4, 2)
    assert [t.turn for t in only.turns] == [3, 3, 8, 9]
    assert _shape(only)[1] == {"late": 2, "last": 3}
    (whole,) = episodes(_dialogue(operations), 100, 2)
    assert len(whole.turns) == 6


@pytest.fixture(scope="module")
def tiny():
    return make_tiny()


def test_arrays_say_what_episodes_say(tiny):
    encoder, conversations = tiny.pair.encoder, tiny.conversations
    plain = [dataclasses.replace(c, operations=()) for c in conversations]
    made = [e for c in plain for e in episodes(c, 4, 2, start="facts")]
    data = encode_episodes(encoder, plain, made, 5, 3)
    assert isinstance(data, EpisodeData) and data.rows == len(made) == 2
    assert data.turns.asked.shape == (2, 5, encoder.sizes.questions)
    for row, episode in enumerate(made):
        count = len(episode.turns)
        assert data.turns.present[row].tolist() == [True] * count + [False] * (5 - count)
        assert not data.turns.asked[row, count:].any()
        assert not data.turns.facts.length[row, count:].any()
        for index, turn in enumerate(episode.turns):
            assert data.turns.speaker[row, index] == turn.speaker
            facts = data.turns.facts
            said = [
                tiny.decode(facts.tokens[row, index, f, : facts.length[row, index, f]])
                for f in range(len(turn.facts))
            ]
            wanted = [encoder.tokenize(f.text)[: encoder.sizes.memory_width] for f in turn.facts]
            assert said == [tiny.decode(tokens) for tokens in wanted]
            assert facts.source[row, index] == turn.turn
            assert data.turns.asked[row, index].sum() == min(2, len(turn.questions))
        asked = int(data.asked[row].sum())
        assert asked == min(3, len(episode.questions))
        for place in range(asked):
            query = _question_at(data.queries, row, place)
            due = data.due[row, place]
            same = [q for q, d in zip(episode.questions, episode.due, strict=True) if d == due]
            texts = [tiny.decode(encoder.tokenize(q.question)) for q in same]
            assert tiny.decode(query.tokens[: query.length]) in texts
        for speaker in (0, 1):
            assert data.banks[speaker].alive[row].sum() == len(episode.banks[speaker])
    batch = data.select(np.array([1]), np.array([True]))
    np.testing.assert_array_equal(batch.turns.present[0], data.turns.present[1])
    np.testing.assert_array_equal(batch.due, data.due[1:])
    counts = left_out_of_episodes(encoder, plain, made, 3)
    assert counts["questions beyond --final_questions=3"] == sum(
        max(0, len(e.questions) - 3) for e in made
    )
    told = {q.index for e in made for q in e.questions}
    untold = sum(len(c.questions) for c in plain) - len(told)
    assert counts["questions that the facts of no episode answer"] == untold


def _question_at(query, row, place):
    """Returns one of the questions `[rows, N, ...]`."""
    return dataclasses.replace(
        query, tokens=query.tokens[row, place], length=query.length[row, place]
    )


def test_all_turns_and_questions_where_no_number_is_given(tiny):
    (whole,) = episodes(tiny.conversations[0], 0, 2)
    data = encode_episodes(tiny.pair.encoder, tiny.conversations, [whole], 0, 0)
    assert data.turns.present.shape == (1, len(whole.turns)) and data.turns.present.all()
    assert data.asked.shape == (1, len(whole.questions)) and data.asked.all()
    np.testing.assert_array_equal(data.due[0], whole.due)


def test_no_episode_is_an_error(tiny):
    with pytest.raises(UserError, match="Raise --episode_turns"):
        encode_episodes(tiny.pair.encoder, tiny.conversations, [], 4, 3)
