import json
import re

import pytest

from memr1_jax.data.longmemeval import KINDS, load_longmemeval
from memr1_jax.errors import UserError


def _say(role, content, **marks):
    return {"role": role, "content": content, **marks}


@pytest.fixture
def items():
    """Records of the true schema, every word of them ours: one for each trap."""
    late = [
        _say("user", "I moved to Oslo.", has_answer=True),
        _say("assistant", "Congratulations!", has_answer=False),
    ]
    early = [
        _say("user", "Where should I live?"),
        _say("assistant", "Bergen, said I.", has_answer=True),
        _say("assistant", "Or Oslo."),
    ]
    return [
        {
            "question_id": "a1",
            "question_type": "knowledge-update",
            "question": "How many towns did I name?",
            "answer": 2,
            "question_date": "2023/05/30 (Tue) 08:08",
            "haystack_session_ids": ["answer_b", "noise_x", "answer_a"],
            # Neither sorted, nor before the question.
            "haystack_dates": [
                "2023/05/30 (Tue) 10:00",
                "2023/05/30 (Tue) 09:59",
                "2022/12/31 (Sat) 23:59",
            ],
            "haystack_sessions": [late, [], early],
            "answer_session_ids": ["answer_a", "answer_b"],
        },
        {
            "question_id": "a2_abs",
            "question_type": "single-session-user",
            "question": "What is my cat called?",
            "answer": "You never spoke of a cat.",
            "question_date": "2023/05/30 (Tue) 08:08",
            "haystack_session_ids": ["noise_y"],
            "haystack_dates": ["2023/05/20 (Sat) 02:21"],
            "haystack_sessions": [[_say("user", "I have a dog.")]],
            "answer_session_ids": [],
        },
    ]


@pytest.fixture
def evidence_turns():
    return [
        {
            "question_id": "b1",
            "question_type": "single-session-assistant",
            "question": "Which town did you name?",
            "answer": "Bergen",
            "question_date": "2023/05/30 (Tue) 08:08",
            "haystack_dates": ["2023/05/20 (Sat) 02:21"],
            "haystack_sessions": [[_say("assistant", "Bergen, said I.", has_answer=True)]],
        },
        {
            "question_id": "b2_abs",
            "question_type": "multi-session",
            "question": "How many cats have I?",
            "answer": "You never spoke of cats.",
            "question_date": None,
            "haystack_dates": [],
            "haystack_sessions": [],
        },
    ]


def test_sessions_are_sorted_by_date_and_evidence_follows_them(write, items):
    conversation, _ = load_longmemeval(write(items))
    assert [(s.number, s.time, len(s.turns)) for s in conversation.sessions] == [
        (1, "2022/12/31 (Sat) 23:59", 3),
        (2, "2023/05/30 (Tue) 09:59", 0),
        (3, "2023/05/30 (Tue) 10:00", 2),
    ]
    assert [(t.dia_id, t.speaker, t.text) for t in conversation.turns] == [
        ("D1:1", "user", "Where should I live?"),
        ("D1:2", "assistant", "Bergen, said I."),
        ("D1:3", "assistant", "Or Oslo."),
        ("D3:1", "user", "I moved to Oslo."),
        ("D3:2", "assistant", "Congratulations!"),
    ]
    (question,) = conversation.questions
    assert question.evidence == ("D1:2", "D3:1") and question.evidence_sessions == (1, 3)


def test_a_question_carries_what_its_judge_needs(write, items):
    first, second = (c.questions[0] for c in load_longmemeval(write(items)))
    assert (first.id, first.kind, first.answer, first.category) == (
        *("a1", "knowledge-update", "2", 0),
    )
    assert first.time == "2023/05/30 (Tue) 08:08" and first.index == 0 and not first.abstain
    assert second.abstain and second.answer == "You never spoke of a cat."
    assert second.evidence == () and second.evidence_sessions == () and second.index == 1


def test_one_user_has_one_bank(write, items):
    for conversation in load_longmemeval(write(items)):
        assert conversation.speakers == ("user", "assistant")
        assert conversation.one_bank and conversation.owners == ("user",)


def test_nothing_that_a_memory_reads_says_where_the_evidence_is(write, items):
    for conversation in load_longmemeval(write(items)):
        assert not re.search("answer|noise|True|False", str(conversation.sessions))


def test_evidence_turns_are_a_set_of_their_own(write, items, evidence_turns):
    path = write(evidence_turns)
    found, empty = load_longmemeval(path, "evidence_turns")
    assert found.questions[0].evidence == ("D1:1",)
    assert found.questions[0].evidence_sessions == (1,)
    assert empty.sessions == () and empty.questions[0].time == "" and empty.questions[0].abstain
    assert len(empty.stages) == 1
    with pytest.raises(UserError, match=r"0 \(b1\): these seem to be evidence turns alone"):
        load_longmemeval(path, "oracle")
    with pytest.raises(UserError, match="seem to be whole sessions"):
        load_longmemeval(write(items), "evidence_turns")


def test_equal_turns_of_different_items_are_held_once(write, items):
    items[1]["haystack_sessions"] = [json.loads(json.dumps(items[0]["haystack_sessions"][2]))]
    first, second = load_longmemeval(write(items))
    assert first.turns[0].text is second.turns[0].text


def test_a_limit_stops_before_what_follows(write, items):
    path = write(json.dumps(items)[:-1] + ', {"broken"')
    assert [c.id for c in load_longmemeval(path, limit=2)] == ["a1", "a2_abs"]


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("haystack_dates", ["2023/05/30 (Tue) 10:00"], "3 sessions with 1 dates and 3 ids"),
        ("question_type", "trivia", "question_type: 'trivia' is none of"),
        ("answer", None, "answer: expected str or int or float but found NoneType"),
        ("haystack_session_ids", ["x", 3, "y"], "haystack_session_ids, 1: expected str"),
    ],
)
def test_errors_name_the_place(write, items, key, value, complaint):
    items[0][key] = value
    path = write(items)
    with pytest.raises(UserError, match=re.escape(f"{path}, 0 (a1)")) as error:
        load_longmemeval(path)
    assert complaint in str(error.value)


def test_dates_and_roles_are_checked(write, items):
    items[0]["haystack_dates"][1] = "30 May 2023"
    with pytest.raises(UserError, match="haystack_dates, 1: '30 May 2023' does not read like"):
        load_longmemeval(write(items))
    items[0]["haystack_dates"][1] = "2023/05/30 (Tue) 10:00"
    items[0]["haystack_sessions"][0][1]["role"] = "system"
    with pytest.raises(UserError, match="haystack_sessions, 0, 1, role: 'system' is none of"):
        load_longmemeval(write(items))


def test_the_whole_oracle_instances(real_data):
    path = real_data("longmemeval", "longmemeval_oracle_sample2.json")
    first, second = load_longmemeval(path)
    assert (first.id, len(first.sessions), len(first.turns)) == ("6a1eabeb", 2, 24)
    assert first.questions[0].kind == "knowledge-update" and len(first.questions[0].evidence) == 2
    assert second.id == "gpt4_70e84552_abs" and second.questions[0].abstain
    assert second.sessions[-1].time > second.questions[0].time  # dated after the question


def test_the_whole_s_instance(real_data):
    (item,) = load_longmemeval(real_data("longmemeval", "longmemeval_s_single_e47becba.json"), "s")
    assert (len(item.sessions), len(item.turns)) == (53, 550)
    assert sum(len(turn.text.split()) for turn in item.turns) == 78859
    (number,) = item.questions[0].evidence_sessions
    said = " ".join(turn.text for turn in item.sessions[number - 1].turns)
    assert item.questions[0].answer in said


def test_the_evidence_turns(real_data):
    path = real_data("longmemeval", "longmemeval_oracle_evidence_turns.json")
    conversations = load_longmemeval(path, "evidence_turns")
    questions = [c.questions[0] for c in conversations]
    assert len(questions) == 500 and sum(bool(q.evidence) for q in questions) == 479
    assert {kind: sum(q.kind == kind for q in questions) for kind in KINDS} == {
        "single-session-user": 70,
        "single-session-assistant": 56,
        "single-session-preference": 30,
        "multi-session": 133,
        "knowledge-update": 78,
        "temporal-reasoning": 133,
    }
    assert sum(q.abstain for q in questions) == 30
    speakers = [turn.speaker for c in conversations for turn in c.turns]
    assert (speakers.count("user"), speakers.count("assistant")) == (842, 54)
    comparable = [q for q in questions if not q.abstain and q.kind != "single-session-preference"]
    assert len(comparable) == 440 and all(q.evidence for q in comparable)
