"""PersonaMem v1 (arXiv 2504.14225): multiple choice on what an assistant knows about its user.

Questions stand in a CSV file. Each names a context, a line of a second file, and how many of its
messages precede it: `Question.after`. A context is one conversation with all its questions.
"""

import ast
import csv
import dataclasses
import os
import re
from collections.abc import Iterator

from memr1_jax.data.nodes import Node, read_lines
from memr1_jax.data.published import Edition, PublishedFile
from memr1_jax.data.types import Conversation, Question, Session, Turn
from memr1_jax.errors import UserError
from memr1_jax.run.files import whole_characters

SPEAKERS = ("user", "assistant")
SYSTEM = "system"

_COLUMNS = (
    *("question_id", "question_type", "user_question_or_message", "correct_answer"),
    *("all_options", "shared_context_id", "end_index_in_shared_context"),
)
_LABEL = re.compile(r"\([a-z]\)")
_OFFICIAL = Edition("official")


def _published(name: str, flag: str, editions: dict[str, Edition]) -> PublishedFile:
    return PublishedFile(
        title="PersonaMem",
        name=name,
        editions=editions,
        home="published by bowen-upenn/PersonaMem on Hugging Face",
        licence="the MIT licence",
        url=f"https://huggingface.co/datasets/bowen-upenn/PersonaMem/resolve/main/{name}",
        flag=flag,
    )


QUESTIONS = {
    length: _published(f"questions_{length}.csv", "--data_path", editions)
    for length, editions in {
        "32k": {
            "cccd34cf53e0bc4d9536c04cff5ca045156d9a4e227e83327112482840bbc93c": _OFFICIAL,
            "23f306a8d28b7ffcf133fe7dad09ade06fcb862fc7c3f19691362a5cd69409bd": Edition(
                "official but for line ends"
            ),
        },
        "128k": {"f0e137c3167fadbffbce5be2786105283c3299972c4ac1f158939155fd1578a7": _OFFICIAL},
        "1M": {"f24db37c1ef49e8f3cc6585da3d7e1638bb9bfb32c95df4de065e4666e448e1f": _OFFICIAL},
    }.items()
}
CONTEXTS = {
    length: _published(f"shared_contexts_{length}.jsonl", "--contexts_path", editions)
    for length, editions in {
        "32k": {
            "217247ebfec9e8442fc53570c795ab69f21aad08745f7de78d9beab51b122d4a": Edition(
                "official", {"conversations": 37, "questions": 589}
            ),
            "c7ac6d9ee9685e7e5a726944492876f423dff13f1318fb075011cbf8dc8cab08": Edition(
                "two contexts", {"conversations": 2, "questions": 17}
            ),
        },
        "128k": {"733cc009e84a138b386c9e40adea741565db01074f73af4058fd039b42951726": _OFFICIAL},
        "1M": {"283c1d4714970284612c846ec143edaa844d1ae065bcea6e28665730a10790f6": _OFFICIAL},
    }.items()
}


def load_personamem(
    questions_path: str | os.PathLike,
    contexts_path: str | os.PathLike,
    system_messages: bool = False,
) -> tuple[list[Conversation], int]:
    """Reads questions and those of their contexts that the second file holds.

    A system message, which describes the user, begins a session. The contents' own "User: " and
    "Assistant: " are removed; `Turn.speaker` says the same.

    Args:
      questions_path: the CSV file.
      contexts_path: the JSON lines.
      system_messages: whether the descriptions of the user are also turns, by the speaker "system".
        They give away much of what is asked.

    Returns:
      The contexts in the order in which the questions name them first, and how many contexts that
      the questions name are missing.

    Raises:
      UserError: a file is not of the schema; the message names file, line and column.
    """
    asked: dict[str, list[tuple[Question, int, str]]] = {}
    for context, question, end, place in _read_questions(questions_path):
        asked.setdefault(context, []).append((question, end, place))
    contexts: dict[str, list[Node]] = {}
    for line in read_lines(contexts_path):
        for identity in line.of(dict).value:
            if identity in contexts:
                raise line.error(f"an earlier line has the context {identity!r} too.")
            if identity in asked:
                contexts[identity] = line[identity].items()
    conversations = [
        _conversation(identity, contexts[identity], questions, system_messages)
        for identity, questions in asked.items()
        if identity in contexts
    ]
    return conversations, len(asked) - len(conversations)


def _conversation(
    identity: str,
    messages: list[Node],
    questions: list[tuple[Question, int, str]],
    system_messages: bool,
) -> Conversation:
    sessions: list[list[Turn]] = []
    kept = [0]  # turns among the first n messages
    for message in messages:
        role, text = message.text("role"), message.text("content")
        if role not in (*SPEAKERS, SYSTEM):
            raise message["role"].error(f"{role!r} is none of user, assistant and system.")
        if role == SYSTEM or not sessions:
            sessions.append([])
        is_turn = system_messages or role != SYSTEM
        kept.append(kept[-1] + is_turn)
        if is_turn:
            turns = sessions[-1]
            text = text.removeprefix(f"{role.capitalize()}: ")
            turns.append(Turn(role, text, f"D{len(sessions)}:{len(turns) + 1}"))
    placed = []
    for question, end, place in questions:
        if not 0 <= end <= len(messages):
            raise UserError(
                f"{place}, end_index_in_shared_context: {end} is more than the {len(messages)} "
                f"messages of context {identity}."
            )
        placed.append(dataclasses.replace(question, after=kept[end]))
    return Conversation(
        identity,
        SPEAKERS,
        tuple(Session(number, "", tuple(turns)) for number, turns in enumerate(sessions, start=1)),
        tuple(placed),
        (),
        one_bank=True,
    )


def _read_questions(path: str | os.PathLike) -> Iterator[tuple[str, Question, int, str]]:
    """Yields context, question, number of preceding messages, and place of each row."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} lacks the columns {', '.join(missing)}. Fetch it again.")
            for index, row in enumerate(reader):
                place = f"{path}, line {reader.line_num}"
                yield row["shared_context_id"], *_question(row, index, place), place
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}. Check --data_path.") from error


def _question(row: dict[str, str], index: int, place: str) -> tuple[Question, int]:
    empty = [name for name in _COLUMNS if not row[name]]
    if empty:
        raise UserError(f"{place}: {', '.join(empty)} is empty.")
    options, answer = _options(row["all_options"], place), row["correct_answer"]
    if answer not in [option[:3] for option in options]:
        raise UserError(
            f"{place}, correct_answer: {answer[:80]!r} is the label of none of the options."
        )
    end = row["end_index_in_shared_context"]
    if not end.isdecimal() or len(end) > 9:
        raise UserError(f"{place}, end_index_in_shared_context: {end[:80]!r} is no number.")
    question = Question(
        question=row["user_question_or_message"],
        answer=answer,
        category=0,
        evidence=(),
        index=index,
        id=row["question_id"],
        kind=row["question_type"],
        options=options,
    )
    return question, int(end)


def _options(text: str, place: str) -> tuple[str, ...]:
    """Reads the choices from a Python list, which is never evaluated as code."""
    try:
        options = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise UserError(f"{place}, all_options: this is no list of options: {error}.") from error
    labelled = isinstance(options, list) and all(
        isinstance(option, str) and _LABEL.match(option) for option in options
    )
    if not labelled:
        raise UserError(f'{place}, all_options: expected a list of strings like "(a) ...".')
    return tuple(map(whole_characters, options))
