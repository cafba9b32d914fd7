import json
import re

import pytest

from memr1_jax.data.msc import load_msc, read_cleaned
from memr1_jax.errors import UserError

SECRET = "as only the persona says"


def _record(number):
    """Returns a record of the true schema, every word of it ours."""
    return {
        "personas": [[SECRET], [SECRET]],
        "dialog": [
            {"text": "Back again.", "id": "Speaker 2"},
            {"text": "So I see.", "id": "Speaker 1"},
        ],
        "metadata": {"initial_data_id": f"x_{number}", "session_id": 4},
        "previous_dialogs": [
            {
                "personas": [[SECRET]],
                "dialog": [{"text": "I mend clocks."}, {"text": "I sing."}, {"text": "Nice."}],
                "time_num": 7,
                "time_unit": "days",
                "time_back": "7 days 8 hours ago",
            },
            {"dialog": [{"text": "The big clock stopped."}], "time_back": "2 hours ago"},
        ],
        "init_personas": [[SECRET], []],
        "self_instruct": {"B": "Remember what you mend?", "A": "Clocks!"},
        "summary_speaker_1": [[SECRET]],
        "summary_speaker_2": [[SECRET]],
    }


@pytest.fixture
def dialogues(write):
    lines = "\n".join(json.dumps(_record(number)) for number in range(2))
    return write(lines, "msc_self_instruct.jsonl")


@pytest.fixture
def cleaned(write):
    pairs = [
        {"index": 1, "question": "What does Speaker_1_A mend", "answer": 12},
        {"index": 0, "question": "What does Speaker_0_A mend", "answer": "clocks"},
    ]
    return write(pairs, "cleaned.json")


def test_turns_alternate_and_sessions_say_how_long_ago(dialogues):
    conversation = load_msc(dialogues)[1]
    assert conversation.id == "msc_1" and conversation.speakers == ("Speaker_1_A", "Speaker_1_B")
    assert not conversation.one_bank and conversation.owners == conversation.speakers
    assert [(s.number, s.time) for s in conversation.sessions] == [
        (1, "7 days 8 hours ago"),
        (2, "2 hours ago"),
    ]
    assert [(t.dia_id, t.speaker, t.text) for t in conversation.turns] == [
        ("D1:1", "Speaker_1_A", "I mend clocks."),
        ("D1:2", "Speaker_1_B", "I sing."),
        ("D1:3", "Speaker_1_A", "Nice."),
        ("D2:1", "Speaker_1_A", "The big clock stopped."),
    ]


def test_the_last_session_comes_on_request_and_with_its_own_speakers(dialogues):
    session = load_msc(dialogues, last_session=True)[0].sessions[2]
    assert (session.number, session.time) == (3, "")
    assert [turn.speaker for turn in session.turns] == ["Speaker_0_B", "Speaker_0_A"]


def test_raw_and_cleaned_questions_are_told_apart(dialogues, cleaned):
    raw = [c.questions[0] for c in load_msc(dialogues)]
    assert [(q.question, q.answer, q.kind, q.id) for q in raw] == [
        ("Remember what you mend?", "Clocks!", "opener", "msc_0"),
        ("Remember what you mend?", "Clocks!", "opener", "msc_1"),
    ]
    clean = [c.questions[0] for c in load_msc(dialogues, read_cleaned(cleaned))]
    assert [(q.question, q.answer, q.kind, q.index) for q in clean] == [
        ("What does Speaker_0_A mend", "clocks", "cleaned", 0),
        ("What does Speaker_1_A mend", "12", "cleaned", 1),
    ]


def test_records_with_a_cleaned_question_of_their_own(write):
    record = _record(0) | {
        "speaker_a": "Ada",
        "speaker_b": "Bo",
        "qa": {"question": "What does Ada mend", "answer": "clocks"},
    }
    record["previous_dialogs"][0]["dialog"] = [
        {"id": "Bo", "text": "I sing."},
        {"id": "Ada", "text": "I mend clocks."},
    ]
    (conversation,) = load_msc(write([record]))
    assert conversation.questions[0].kind == "cleaned"
    assert [t.speaker for t in conversation.turns] == ["Bo", "Ada", "Ada"]


def test_personas_and_summaries_are_not_read(dialogues):
    assert SECRET not in str(load_msc(dialogues, last_session=True))


def test_questions_without_dialogues_are_refused(cleaned):
    with pytest.raises(UserError, match="cannot be run alone: name the dialogues with --data_path"):
        load_msc(cleaned)


def test_questions_of_another_edition_are_refused(dialogues, write):
    few = read_cleaned(write([{"index": 0, "question": "q", "answer": "a"}], "few.json"))
    with pytest.raises(UserError, match="line 2: there is no cleaned question of index 1"):
        load_msc(dialogues, few)
    twice = write([{"index": 0, "question": "q", "answer": "a"}] * 2, "twice.json")
    with pytest.raises(UserError, match="twice.json, 1: the index 0 stands there twice"):
        read_cleaned(twice)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r.pop("self_instruct"), "line 1, self_instruct: this is missing"),
        (lambda r: r["self_instruct"].pop("B"), "line 1, self_instruct, B: this is missing"),
        (
            lambda r: r["previous_dialogs"][1]["dialog"][0].pop("text"),
            "line 1, previous_dialogs, 1, dialog, 0, text: this is missing",
        ),
    ],
)
def test_errors_name_line_and_field(write, change, complaint):
    record = _record(0)
    change(record)
    with pytest.raises(UserError, match=re.escape(complaint)):
        load_msc(write(json.dumps(record), "broken.jsonl"))


def test_the_cleaned_questions(real_data):
    questions = read_cleaned(real_data("msc", "msc_self_instruct_clean_qa_only.json"))
    assert list(questions) == list(range(500))
    words = sorted(len(node.text("question").split()) for node in questions.values())
    assert (words[0], words[250], words[-1]) == (4, 11, 22)
    answers = sorted(len(node.written("answer").split()) for node in questions.values())
    assert (answers[0], answers[250], answers[-1]) == (1, 2, 20)
    # They name the speaker as the loader does; the 453rd alone names nobody.
    nameless = [i for i, q in questions.items() if f"Speaker_{i}_A" not in q.text("question")]
    assert nameless == [452]
