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
    with pytest.warns(
        UserWarning, match="own.jsonl: unknown fields 'evidance'.*: 1 .*line 1, questions, 0"
    ):
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
        (_set("questions", 0, "answer", value=" \n"), "questions, 0, answer: this is empty"),
        (_set("questions", 0, "evidence", value=["D9:9"]), "evidence: there is no turn 'D9:9'"),
        (_set("questions", 1, "category", value=6), "questions, 1, category: 6 is none of"),
        (_set("questions", 1, "after", value=5), "after: 5 is not between 0 and the 4 turns"),
        (_set("questions", 1, "abstain", value="no"), "abstain: expected bool but found str"),
        (_set("sessions", 1, "turns", 0, value={"text": "x"}), "sessions, 1, turns, 0, speaker"),
        (_set("sessions", 1, "turns", 0, "id", value="D1:1"), "the turn id 'D1:1' stands there"),
        (_set("sessions", 1, "turns", 0, "speaker", value="Max"), "found 3: Kim, Lou, Max"),
        (_set("speakers", value=["Kim", "Max"]), "speakers: 'Lou', who speaks, is not among them"),
        (_set("turns", value=[]), 'expected either "sessions"'),
        (_set("questions", 0, "answer", value=" "), "questions, 0, answer: this is empty. Write"),
        (_set("questions", 0, "question", value=""), "questions, 0, question: this is empty"),
        (
            _set("sessions", 1, "turns", 0, "text", value=" "),
            "turns, 0, text: this is empty. Write",
        ),
        (_set("sessions", 1, "turns", 0, "speaker", value=""), "turns, 0, speaker: this is empty"),
        (_set("sessions", value=[]), "sessions: there is no turn of a dialogue"),
        (_set("sessions", value=[{"turns": []}]), "sessions: there is no turn of a dialogue"),
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
    with pytest.raises(UserError, match=re.escape("own.jsonl, 0: expected dict but found list")):
        load_own_dialogues(lines([[record]]))


def test_an_array_of_conversations_is_read_like_lines(lines, record):
    other = record | {"id": "other"}
    assert load_own_dialogues(lines([record, other])) == load_own_dialogues(lines(record, other))
    record["questions"] = [{"question": " ", "answer": "x"}]
    with pytest.raises(UserError, match=r"own\.jsonl, 1, questions, 0, question: this is empty"):
        load_own_dialogues(lines([other, record]))


def _chat(*turns, **fields):
    return {"turns": [{"role": role, "content": said} for role, said in turns], **fields}


def test_turns_of_system_and_tool_are_left_out_and_counted(lines):
    turns = [("system", "Be kind."), ("user", "I sail."), ("tool", "{}"), ("assistant", "Nice!")]
    asked = [
        {"question": "Hobby?", "answer": "sailing", "evidence": ["D1:2"]},
        {"question": "Hobby?", "answer": "sailing", "after": 2},
        {"question": "Hobby?", "answer": "sailing", "after": 4},
    ]
    with pytest.warns(UserWarning, match=r"turns of system and tool.*: 2 \(the first: line 1, tur"):
        (chat,) = load_own_dialogues(lines(_chat(*turns, questions=asked)))
    assert [(t.dia_id, t.speaker) for t in chat.turns] == [("D1:2", "user"), ("D1:4", "assistant")]
    assert [q.after for q in chat.questions] == [None, 1, 2]
    assert chat.one_bank
    asked[0]["evidence"] = ["D1:1"]
    with pytest.raises(UserError, match="there is no turn 'D1:1'"):
        load_own_dialogues(lines(_chat(*turns, questions=asked)))
    (named,) = load_own_dialogues(
        lines(_chat(("System", "Hi."), ("Kim", "Hi."), speakers=["Kim", "System"]))
    )
    assert named.speakers == ("Kim", "System") and len(named.turns) == 2


@pytest.mark.parametrize(
    ("person", "machine"), [("human", "gpt"), ("Human", "AI"), ("user", "bot")]
)
def test_other_names_of_a_chat_mean_the_same(lines, person, machine):
    turns = [(machine, "Hello."), (person, "I sail.")]
    fact = {"speaker": person, "text": "The user sails.", "sources": ["D1:2"]}
    (chat,) = load_own_dialogues(lines(_chat(*turns, facts=[fact])))
    assert chat.speakers == ("user", "assistant") and chat.one_bank
    assert [turn.speaker for turn in chat.turns] == ["assistant", "user"]
    assert chat.facts[0].speaker == "user"
    (two,) = load_own_dialogues(lines(_chat(("gpt", "Hello."), ("Kim", "I sail."))))
    assert two.speakers == ("gpt", "Kim") and not two.one_bank


def test_a_time_on_every_message_does_not_make_every_turn_a_session(lines):
    clock = ["09:00", "09:01", "11:30", "17:30", "23:31"]
    times = [f"2024-02-01T{time}:00Z" for time in clock]
    turns = [_turn("KL"[i % 2], f"t{i}", time=time) for i, time in enumerate(times)]
    path = lines({"turns": turns})

    def sessions(**options):
        (conversation,) = load_own_dialogues(path, **options)
        return [(s.time[11:16], len(s.turns)) for s in conversation.sessions]

    assert sessions() == [("09:00", 4), ("23:31", 1)]
    assert sessions(session_gap=2) == [("09:00", 2), ("11:30", 1), ("17:30", 1), ("23:31", 1)]
    assert sessions(session_gap=48) == [("09:00", 5)]
    (conversation,) = load_own_dialogues(path)
    assert [turn.time for turn in conversation.turns] == times


def test_the_first_time_of_a_dialogue_begins_no_session(lines):
    turns = [_turn("K", "a"), _turn("L", "b", time="2024-02-01"), _turn("K", "c"), _turn("L", "d")]
    (conversation,) = load_own_dialogues(lines({"turns": turns}))
    assert [(s.time, len(s.turns)) for s in conversation.sessions] == [("2024-02-01", 4)]


def test_times_that_cannot_be_read_are_counted(lines):
    turns = [
        _turn("KL"[i % 2], f"t{i}", time=t) for i, t in enumerate(["x", "x", "y", "1 May 2024"])
    ]
    with pytest.warns(
        UserWarning, match=r"times that cannot be read.*: 3 \(the first: line 1, tur"
    ):
        (conversation,) = load_own_dialogues(lines({"turns": turns}))
    assert [len(session.turns) for session in conversation.sessions] == [2, 1, 1]


def _with_unknown(record, count):
    asked = [
        {"question": f"q{i}", "answer": "x", "evidence": ["D1:1", f"D9:{i}"]} for i in range(count)
    ]
    return record | {"questions": asked}


def test_all_unknown_ids_are_listed(lines, record):
    fact = {"speaker": "Kim", "text": "x", "sources": ["nowhere"]}
    path = lines(_with_unknown(record, 134) | {"facts": [fact]}, record)
    with pytest.raises(UserError) as error:
        load_own_dialogues(path)
    message = str(error.value).splitlines()
    assert len(message) == 12
    assert message[0] == f"{path}, line 1, questions, 0, evidence: there is no turn 'D9:0'."
    assert message[9].startswith(f"{path}, line 1, questions, 9")
    assert message[10] == "and 125 more such places."
    assert "--drop_unknown_turns" in message[11]
    with pytest.warns(UserWarning) as caught:
        first, second = load_own_dialogues(path, drop_unknown_turns=True)
    assert len(first.questions) == len(first.facts) == 0 and len(second.questions) == 2
    (told,) = caught
    assert "evidence names no turn: 134 (the first: line 1, questions, 0, 'D9:0')" in str(
        told.message
    )
    assert "sources name no turn: 1 (the first: line 1, facts, 0, 'nowhere')" in str(told.message)


def test_ranges_of_evidence_are_read(lines, record):
    record["questions"][0]["evidence"] = ["D1:1-D1:2", "bye"]
    (conversation,) = load_own_dialogues(lines(record))
    assert conversation.questions[0].evidence == ("D1:1", "D1:2", "bye")


def test_half_characters_and_nested_lines_do_no_harm(tmp_path, record):
    path = tmp_path / "own.jsonl"
    record["sessions"][0]["turns"][0]["text"] = "I \ud83d grow\u2028beans."
    path.write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="line 1: half of a surrogate pair"):
        (conversation,) = load_own_dialogues(path)
    assert conversation.turns[0].text == "I \ufffd grow\u2028beans."
    path.write_text(json.dumps(record | {"x": 1})[:-1] + ', "y": ' + "[" * 100_000)
    with pytest.raises(UserError, match="line 1: .*nested too deeply"):
        load_own_dialogues(path)
