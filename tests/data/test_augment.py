"""Altered copies of conversations: their changes, and details that must stay."""

import collections
import dataclasses
import datetime
import re

import pytest

from memr1_jax.data.augment import AugmentOptions, _moved, alter_banks, altered, with_copies
from memr1_jax.data.synthetic import generate_conversations
from memr1_jax.data.times import read_times
from memr1_jax.data.tuples import facts_before, manager_tuples
from memr1_jax.data.types import Conversation, Fact, Question, Session, Turn

OPTIONS = AugmentOptions(copies=3)


@pytest.fixture(scope="module")
def dialogues():
    return generate_conversations(4, 4, num_sessions=8)


def test_nothing_is_altered_by_default(dialogues):
    assert with_copies(dialogues, AugmentOptions(), 0) == dialogues


def test_copies_follow_their_conversation_and_depend_on_the_seed_alone(dialogues):
    made = with_copies(dialogues, OPTIONS, 7)
    assert [c.id for c in made[:4]] == [f"train-4-0{end}" for end in ("", "~1", "~2", "~3")]
    assert made == with_copies(dialogues, OPTIONS, 7) != with_copies(dialogues, OPTIONS, 8)
    assert made[0] == dialogues[0] and len({c.speakers for c in made}) == len(made)


def test_a_copy_is_what_it_was_in_earlier_versions(dialogues):
    copy = altered(dialogues[0], OPTIONS, 0, 1)
    assert copy.speakers == ("Abigail", "Claire")
    assert copy.sessions[0].time == "8:04 am on 1 January, 2024"
    assert copy.facts[0].text == "Claire's favourite band is Wild Engines."


def test_names_change_everywhere_and_nothing_else_does(dialogues):
    only = dataclasses.replace(OPTIONS, weeks=0)
    for dialogue in dialogues:
        copy = altered(dialogue, only, 0, 1)
        back = dict(zip(copy.speakers, dialogue.speakers, strict=True))
        assert not set(copy.speakers) & set(dialogue.speakers)

        def text_of(c):
            said = [f"{turn.speaker}: {turn.text}" for turn in c.turns]
            noted = [f"{fact.speaker}: {fact.text}" for fact in c.facts]
            asked = [f"{q.question} {q.answer}" for q in c.questions]
            return "\n".join(said + noted + asked + [o.text for o in c.operations])

        new = text_of(copy)
        assert not any(re.search(rf"\b{name}\b", new) for name in dialogue.speakers)
        for name, old in back.items():
            new = re.sub(rf"\b{name}\b", old, new)
        assert new == text_of(dialogue)


def test_roles_of_a_chat_keep_their_names(dialogues):
    chat = dataclasses.replace(dialogues[0], speakers=("user", "assistant"))
    assert altered(chat, OPTIONS, 0, 1).speakers == chat.speakers


def test_dates_move_by_whole_weeks_and_answers_with_them(dialogues):
    moved = 0
    for dialogue in dialogues:
        copy = altered(dialogue, dataclasses.replace(OPTIONS, names=False), 0, 2)
        before, after = (read_times([s.time for s in c.sessions]) for c in (dialogue, copy))
        (shift,) = {new - old for new, old in zip(after, before, strict=True)}
        assert shift.days % 7 == 0 and shift.seconds == 0
        moved += bool(shift)
        old = {q.index: q for q in dialogue.questions}
        assert all(q.category != 2 or re.match(r"\d", q.answer) for q in copy.questions)
        for question in copy.questions:
            if question.category == 2:
                then, now = read_times([old[question.index].answer, question.answer])
                assert now - then == shift
            else:
                assert question.answer == old[question.index].answer
        assert len(copy.questions) > len(dialogue.questions) / 2
    assert moved


def _told(text: str, answer: str = "3") -> Conversation:
    """Makes a dialogue of one turn, which is its fact as well, on 8 May 2023."""
    turn = Turn("Ana", text, "D1:1")
    return Conversation(
        "c",
        ("Ana", "Ben"),
        (Session(1, "1:56 pm on 8 May, 2023", (turn,)),),
        (Question("When?", answer, 2, ("D1:1",), 0),),
        (Fact("Ana", text, 1, ("D1:1",)),),
    )


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("on 7 May 2023", "on 14 May 2023"),
        ("on 28 December, 2022.", "on 4 January, 2023."),
        ("May 30th, 2023", "June 6, 2023"),
        ("the Sunday before 25 May 2023", "the Sunday before 1 June 2023"),
        ("on 30 Dec", "on 6 Jan"),
        ("May 5", "May 12"),
        ("in June, I may go to 4 shops", "in June, I may go to 4 shops"),
        ("31 June 2023", "31 June 2023"),
        ("since 2016", "since 2016"),
    ],
)
def test_days_move_and_months_stay(text, moved):
    week = datetime.timedelta(weeks=1)
    made = _moved(_told(text), week)
    assert made.turns[0].text == made.facts[0].text == moved
    assert made.sessions[0].time == "1:56 pm on 15 May, 2023"


def test_questions_of_months_and_years_are_left_out_of_a_moved_copy():
    week = datetime.timedelta(weeks=1)
    kept = [
        a
        for a in ("7 May 2023", "4 years", "June 2023", "2022")
        if _moved(_told("", a), week).questions
    ]
    assert kept == ["7 May 2023", "4 years"]


def test_banks_of_copies_lose_memories_but_no_evidence(dialogues):
    (dialogue,) = dialogues[:1]
    copy = altered(dialogue, OPTIONS, 0, 1)
    lost = orders = 0
    for turn in manager_tuples(copy, window=None):
        assert alter_banks(turn, dialogue, OPTIONS, 0) == turn
        fewer = alter_banks(turn, copy, OPTIONS, 0)
        assert fewer == alter_banks(turn, copy, OPTIONS, 0)
        needed = {identity for question in turn.questions for identity in question.evidence}
        for old, new in zip(turn.banks, fewer.banks, strict=True):
            assert not collections.Counter(new) - collections.Counter(old)
            assert all(fact in new for fact in old if needed & {*fact.sources})
            lost += len(old) - len(new)
            orders += sorted(new, key=old.index) != list(new)
        everything = alter_banks(turn, copy, OPTIONS, 0, repeats=True)
        assert [set(bank) for bank in everything.banks] == [set(bank) for bank in turn.banks]
    assert lost > 10 and orders > 3


def test_gold_operations_hold_in_a_copy(dialogues):
    for dialogue in dialogues:
        copy = altered(dialogue, OPTIONS, 0, 1)
        then, now = (facts_before(c, len(c.turns)) for c in (dialogue, copy))
        assert [dialogue.facts.index(fact) for fact in then] == [copy.facts.index(f) for f in now]
        told = [copy.facts[o.fact].text for o in copy.operations if o.text]
        assert told == [o.text for o in copy.operations if o.text]
