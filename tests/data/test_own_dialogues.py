import json
import re

import pytest

from memr1_jax.data.own_dialogues import load_own_dialogues, turns_as_facts
from memr1_jax.data.types import Fact
from memr1_jax.errors import UserError


def _turn(speaker, text, **extra):
    return {"speaker": speaker, "text": text, **extra}


@pytest.fixture
def record():
    return {
        "sessions": [
            {"time": "Monday", "turns": [_turn("Kim", "I grow beans."), _turn("Lou", "I sail.")]},
            {"turns": [_turn("Lou", "Bye!", time="Friday", id="bye"), _turn("Kim", "Bye.")]},
        ],
        "questions": [
            {"question": "What grows?", "answer": "beans", "evidence": ["bye", "D1:1"]},
            {"question": "How many?", "answer": 2.5, "category": 4, "kind": "count", "time": 2024},
        ],
    }


@pytest.fixture
def lines(write):
    def _lines(*records):
        return write("\n".join(json.dumps(record) for record in records), "own.jsonl")

    return _lines


def test_everything_but_turns_has_a_default(lines, record, recwarn):
    (conversation,) = load_own_dialogues(lines(record))
    assert (conversation.id, conversation.speakers) == ("own-1", ("Kim", "Lou"))
    assert not conversation.one_bank and conversation.split == "" and conversation.facts == ()
    assert [(s.number, s.time) for s in conversation.sessions] == [(1, "Monday"), (2, "Friday")]
    assert [t.dia_id for t in conversation.turns] == ["D1:1", "D1:2", "bye", "D2:2"]
    assert [t.time for t in conversation.turns] == ["", "", "Friday", ""]
    first, second = conversation.questions
    assert first.evidence == ("D1:1", "bye") and first.category == 0 and first.after is None
    assert (second.answer, second.category, second.kind, second.time) == (
        *("2.5", 4, "count", "2024"),
    )
    assert not recwarn


def test_a_change_of_time_begins_a_session(lines):
    times = ["May", "May", None, "June", "May"]
    turns = [_turn("KL"[i % 2], f"t{i}", time=time) for i, time in enumerate(times)]
    (conversation,) = load_own_dialogues(lines({"turns": turns}))
    assert [(s.number, s.time, [t.text for t in s.turns]) for s in conversation.sessions] == [
        (1, "May", ["t0", "t1", "t2"]),
        (2, "June", ["t3"]),
        (3, "May", ["t4"]),
    ]


def test_chats_have_one_bank_of_the_user(lines):
    turns = [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "I sail."}]
    (chat,) = load_own_dialogues(lines({"turns": turns}))
    assert chat.speakers == ("assistant", "user")[::-1] and chat.owners == ("user",)
    (two,) = load_own_dialogues(lines({"turns": turns, "one_bank": False}))
    assert two.owners == ("user", "assistant")


def test_questions_without_an_answer_in_the_dialogue(lines, record):
    record["questions"] = [
        {"question": "Who?", "abstain": True},
        {"question": "Who?", "answer": "nobody", "category": 5},
    ]
    (conversation,) = load_own_dialogues(lines(record))
    assert [(q.answer, q.category, q.abstain) for q in conversation.questions] == [
        ("", 5, True),
        ("nobody", 5, True),
    ]


def test_facts_stand_in_dialogue_order_or_the_turns_are_facts(lines, record):
    plain, noted = load_own_dialogues(
        lines(
            record,
            record
            | {
                "id": "noted",
                "facts": [
                    {"speaker": "Lou", "text": "Lou left.", "sources": ["bye", "D1:2"]},
                    {"speaker": "Kim", "text": "Kim grows beans.", "sources": ["D1:1"]},
                ],
            },
        )
    )
    assert noted.facts == (
        Fact("Kim", "Kim grows beans.", 1, ("D1:1",)),
        Fact("Lou", "Lou left.", 2, ("D1:2", "bye")),
    )
    assert turns_as_facts(noted) is noted
    assert turns_as_facts(plain).facts == (
        Fact("Kim", "Kim: I grow beans.", 1, ("D1:1",)),
        Fact("Lou", "Lou: I sail.", 1, ("D1:2",)),
        Fact("Lou", "Lou: Bye!", 2, ("bye",)),
        Fact("Kim", "Kim: Bye.", 2, ("D2:2",)),
    )


def test_a_silent_speaker_can_be_named(lines, record):
    turns = [_turn("Kim", "Dear diary")]
    with pytest.raises(UserError, match="own.jsonl, line 1: expected two speakers but found 1"):
        load_own_dialogues(lines({"turns": turns}))
    (diary,) = load_own_dialogues(lines({"turns": turns, "speakers": ["Diary", "Kim"]}))
    assert diary.speakers == ("Diary", "Kim")


def test_unknown_fields_are_named_in_a_warning(lines, record):
    record["questions"][0]["evidance"] = record["questions"][0].pop("evidence")
    with pytest.warns(UserWarning, match="line 1, questions, 0, evidance: no such field"):
        (conversation,) = load_own_dialogues(lines(record))
    assert conversation.questions[0].evidence == ()


def _set(*path, value):
    def change(record):
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_set("questions", 0, value={"answer": "x"}), "questions, 0, question: this is missing."),
        (_set("questions", 0, value={"question": "x"}), "questions, 0, answer: this is missing."),
        (_set("questions", 0, "answer", value=None), "questions, 0, answer: expected str or int"),
        (_set("questions", 0, "answer", value=" \n"), "questions, 0, answer: the answer is empty"),
        (_set("questions", 0, "evidence", value=["D9:9"]), "evidence: there is no turn 'D9:9'"),
        (_set("questions", 1, "category", value=6), "questions, 1, category: 6 is none of"),
        (_set("questions", 1, "after", value=5), "after: 5 is not between 0 and the 4 turns"),
        (_set("questions", 1, "abstain", value="no"), "abstain: expected bool but found str"),
        (_set("sessions", 1, "turns", 0, value={"text": "x"}), "sessions, 1, turns, 0, speaker"),
        (_set("sessions", 1, "turns", 0, "id", value="D1:1"), "the turn id 'D1:1' stands there"),
        (_set("sessions", 1, "turns", 0, "speaker", value="Max"), "found 3: Kim, Lou, Max"),
        (_set("speakers", value=["Kim", "Max"]), "speakers: 'Lou', who speaks, is not among them"),
        (_set("turns", value=[]), 'expected either "sessions"'),
        (_set("split", value="dev"), "split: 'dev' is none of train, validation, test"),
        (_set("facts", value=[{"speaker": "Max"}]), "facts, 0, speaker: 'Max' is not one of"),
        (
            _set("facts", value=[{"speaker": "Kim", "text": "x", "sources": []}]),
            "facts, 0, sources: expected ids of turns, not none",
        ),
    ],
)
def test_errors_name_file_line_and_field(lines, record, change, complaint):
    good = json.loads(json.dumps(record)) | {"id": "good"}
    change(record)
    path = lines(good, record)
    with pytest.raises(UserError) as error:
        load_own_dialogues(path)
    assert str(error.value).startswith(f"{path}, line 2") and complaint in str(error.value)


def test_ids_are_unique_and_files_are_not_empty(lines, record):
    record["id"] = "x"
    with pytest.raises(UserError, match="line 2, id: an earlier line has the id 'x' too"):
        load_own_dialogues(lines(record, record))
    with pytest.raises(UserError, match="own.jsonl holds no conversation"):
        load_own_dialogues(lines())
    with pytest.raises(UserError, match=re.escape("line 1: expected dict but found list")):
        load_own_dialogues(lines([record]))
