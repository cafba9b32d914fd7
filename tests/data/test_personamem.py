import csv
import json
import re

import pytest

from memr1_jax.data.personamem import load_personamem
from memr1_jax.errors import UserError

OPTIONS = ["(a) It's rock.", '(b) "Jazz", said she.', "(c) Nothing, I\nthink.", "(d) Opera."]
MESSAGES = [
    ("system", "Current user persona: a singer"),
    ("user", "User: I sing."),
    ("assistant", "Assistant: What?"),
    ("user", "User: User: jazz."),  # the second one is what was written
    ("user", "User: And opera."),  # neighbours that share a role
    ("system", "Current user persona: an old singer"),
    ("assistant", "Hello."),
    ("user", "Assistant: is what I call you."),
    ("user", "User: I stopped."),
]


def _row(number, context, end, **changes):
    return {
        "persona_id": "0",
        "question_id": f"id-{number}",
        "question_type": "recall_user_shared_facts",
        "topic": "music",
        "context_length_in_tokens": "9",
        "user_question_or_message": "What do I sing, or like, now?",
        "correct_answer": "(b)",
        "all_options": repr(OPTIONS),
        "shared_context_id": context,
        "end_index_in_shared_context": str(end),
    } | changes


@pytest.fixture
def files(tmp_path):
    """Writes rows and contexts; the rows end as the published file's do."""

    def _files(rows, contexts=("one", "two")):
        questions = tmp_path / "questions.csv"
        with open(questions, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\r\n")
            writer.writeheader()
            writer.writerows(rows)
        told = [{"role": role, "content": content} for role, content in MESSAGES]
        path = tmp_path / "contexts.jsonl"
        path.write_text("".join(json.dumps({context: told}) + "\n" for context in contexts))
        return questions, path

    return _files


def _texts(session):
    return [(turn.speaker, turn.text) for turn in session.turns]


ROWS = [_row(0, "two", 9), _row(1, "one", 5), _row(2, "two", 3), _row(3, "two", 6), _row(4, "x", 1)]


def test_questions_meet_the_messages_before_them(files):
    (two, one), missing = load_personamem(*files(ROWS))
    assert missing == 1 and (two.id, one.id) == ("two", "one")
    assert [(q.id, q.index, q.after) for q in two.questions] == [
        ("id-0", 0, 7),
        ("id-2", 2, 2),
        ("id-3", 3, 4),  # the sixth message is the system's and no turn
    ]
    read = [
        ([_texts(session) for session in stage.sessions], [q.id for q in stage.questions])
        for stage in two.stages
    ]
    assert read == [
        ([[("user", "I sing."), ("assistant", "What?")]], ["id-2"]),
        ([[("user", "User: jazz."), ("user", "And opera.")]], ["id-3"]),
        (
            [
                [
                    ("assistant", "Hello."),
                    ("user", "Assistant: is what I call you."),
                    ("user", "I stopped."),
                ]
            ],
            ["id-0"],
        ),
    ]
    assert [(s.number, s.time) for s in one.sessions] == [(1, ""), (2, "")]
    assert len(one.turns) == 7 and one.one_bank


def test_system_messages_are_turns_on_request(files):
    (two, _), _ = load_personamem(*files(ROWS), system_messages=True)
    assert len(two.turns) == 9
    assert _texts(two.sessions[1])[0] == ("system", "Current user persona: an old singer")
    assert [q.after for q in two.questions] == [9, 3, 6]
    (silent, _), _ = load_personamem(*files(ROWS))
    assert "persona" not in str(silent.sessions)


def test_options_and_key_are_the_questions_own(files):
    (two, _), _ = load_personamem(*files(ROWS))
    question = two.questions[0]
    assert question.options == tuple(OPTIONS) and question.answer == "(b)"
    assert question.kind == "recall_user_shared_facts" and question.category == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"all_options": "__import__('os').remove('x')"}, "all_options: this is no list"),
        ({"all_options": "['(a) x', 2]"}, "all_options: expected a list of strings"),
        ({"all_options": "['a) x']"}, "all_options: expected a list of strings"),
        ({"correct_answer": "(e)"}, "correct_answer: '(e)' is the label of none"),
        ({"correct_answer": ""}, "correct_answer is empty"),
        ({"end_index_in_shared_context": "ten"}, "end_index_in_shared_context: 'ten'"),
        ({"end_index_in_shared_context": "10"}, "10 is more than the 9 messages of context one"),
    ],
)
def test_errors_name_line_and_column(files, changes, complaint):
    # Every row has two lines, because of the line end inside an option.
    questions, contexts = files([_row(0, "one", 1), _row(1, "one", 1, **changes)])
    with pytest.raises(UserError, match=re.escape(complaint)) as error:
        load_personamem(questions, contexts)
    assert str(error.value).startswith(f"{questions}, line 3")


def test_a_file_without_the_columns_is_refused(files):
    row = _row(0, "one", 1)
    del row["all_options"], row["correct_answer"]
    with pytest.raises(UserError, match="lacks the columns correct_answer, all_options"):
        load_personamem(*files([row]))
    with pytest.raises(UserError, match="nowhere.csv cannot be read"):
        load_personamem("nowhere.csv", "nowhere.jsonl")


def test_unknown_roles_are_refused(files, tmp_path):
    questions, _ = files([_row(0, "one", 1)])
    contexts = tmp_path / "odd.jsonl"
    contexts.write_text(json.dumps({"one": [{"role": "tool", "content": "x"}]}))
    with pytest.raises(UserError, match="odd.jsonl, line 1, one, 0, role: 'tool' is none"):
        load_personamem(questions, contexts)


def test_the_published_questions_with_two_contexts(real_data):
    questions = real_data("personamem", "questions_32k.csv")
    contexts = real_data("personamem", "shared_contexts_32k.subset2.jsonl")
    conversations, missing = load_personamem(questions, contexts, system_messages=True)
    assert missing == 35 and [len(c.questions) for c in conversations] == [9, 8]
    with open(questions, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for conversation in conversations:
        assert len(conversation.sessions) == 5
        roles = [turn.speaker for turn in conversation.turns]
        assert sum(a == b for a, b in zip(roles, roles[1:], strict=False)) == 26
        for question in conversation.questions:
            # The file says how long what precedes the question is, prefixes included.
            length = sum(
                len(turn.text) + (turn.speaker != "system") * len(f"{turn.speaker}: ")
                for turn in conversation.turns[: question.after]
            )
            assert length == int(rows[question.index]["context_length_in_letters"])
            assert rows[question.index]["question_id"] == question.id
