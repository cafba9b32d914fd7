"""PersonaMem v2 (arXiv 2512.06688): multiple choice on what a user let slip in long chats.

A row of `benchmark/text/benchmark.csv` (bowen-upenn/PersonaMem-v2 on the hub, CC BY 4.0) links the
history that precedes it, a JSON file named from the root of the data set. Columns and files were
taken from the authors' preprocessing script and not tried on the real files:

    persona_id, chat_history_32k_link, chat_history_128k_link, user_query: "{'role', 'content'}",
    correct_answer, incorrect_answers: "[str, str, str]", pref_type
    history: {"metadata": {...}, "chat_history": [{"role", "content"}]} or the list alone

The options are shuffled here, by the row's place in the file; the published script shuffles them
otherwise. The first message, which describes the user, is left out.
"""

import ast
import csv
import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memr1_jax.data.nodes import Node, read_json
from memr1_jax.data.notes import Note
from memr1_jax.data.published_sets import PublishedSet, files_in
from memr1_jax.data.types import Conversation, Question, Session, Turn
from memr1_jax.errors import UserError
from memr1_jax.run.files import whole_characters

SPEAKERS = ("user", "assistant")
_FILE = "benchmark.csv"
_COLUMNS = ("user_query", "correct_answer", "incorrect_answers", "pref_type")
LOST = "questions whose history is not there"

PERSONAMEM_V2 = {
    length: PublishedSet(
        title=f"PersonaMem v2 {length}",
        name=f"benchmark/text/{_FILE}, with the histories that it links",
        home="hf:bowen-upenn/PersonaMem-v2",
        licence="CC BY 4.0",
        counts={"questions": 5000},
    )
    for length in ("32k", "128k")
}


def load_personamem_v2(
    path: Path, published: PublishedSet, length: str
) -> tuple[list[Conversation], list[Path]]:
    """Reads the questions whose histories are there; a history with its questions is a dialogue."""
    named = files_in(path, _FILE, published)
    file = next((f for f in named if f.parent.name == "text"), named[0])
    asked: dict[str, list[Question]] = {}
    for link, question in _rows(file, f"chat_history_{length}_link"):
        asked.setdefault(link, []).append(question)
    conversations, files, missing = [], [file], []
    for link, questions in asked.items():
        history = _history(file, link)
        if history is None:
            missing += [Note(LOST, str(file), link)] * len(questions)
        else:
            files.append(history)
            conversations.append(_conversation(link, read_json(history), questions))
    if not conversations:
        raise UserError(
            f"None of the {len(asked)} histories that {file} links is there; the first is"
            f" {next(iter(asked), '')!r}. {published.advice}"
        )
    first, *others = conversations
    return [dataclasses.replace(first, notes=tuple(missing)), *others], files


def _history(file: Path, link: str) -> Path | None:
    """Finds a linked file from any folder above the questions."""
    parts = Path(link).parts
    if Path(link).is_absolute() or ".." in parts:
        raise UserError(f"{file} links {link}, which is outside the data set.")
    places = [folder.joinpath(*parts) for folder in file.resolve().parents]
    return next((place for place in places if place.is_file()), None)


def _rows(path: Path, column: str) -> Iterator[tuple[str, Question]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            wanted = (*_COLUMNS, column)
            missing = [name for name in wanted if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} lacks the columns {', '.join(missing)}. Fetch it again.")
            for index, row in enumerate(reader):
                place = f"{path}, line {reader.line_num}"
                if empty := [name for name in wanted if not (row[name] or "").strip()]:
                    raise UserError(f"{place}: {', '.join(empty)} is empty.")
                yield row[column].strip(), _question(row, index, place)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}. Check --data_path.") from error


def _question(row: dict[str, str], index: int, place: str) -> Question:
    wrong = _literal(row["incorrect_answers"], f"{place}, incorrect_answers")
    if not isinstance(wrong, list) or len(wrong) != 3 or not all(isinstance(w, str) for w in wrong):
        raise UserError(f"{place}, incorrect_answers: expected a list of three texts.")
    query = _literal(row["user_query"], "") if row["user_query"].lstrip().startswith("{") else None
    asked = query.get("content") if isinstance(query, dict) else row["user_query"]
    if not isinstance(asked, str) or not asked.strip():
        raise UserError(f"{place}, user_query: there is no question.")
    texts = [row["correct_answer"], *wrong]
    order = random.Random(index).sample(range(4), 4)
    return Question(
        question=whole_characters(asked),
        answer=f"({'abcd'[order.index(0)]})",
        category=0,
        evidence=(),
        index=index,
        id=f"pmv2_{index}",
        kind=row["pref_type"],
        options=tuple(
            whole_characters(f"({letter}) {texts[choice]}")
            for letter, choice in zip("abcd", order, strict=True)
        ),
    )


def _literal(text: str, place: str) -> Any:
    """Reads a Python literal, which is never evaluated as code."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        if not place:
            return None
        raise UserError(f"{place}: this is no Python literal ({error}).") from error


def _conversation(link: str, history: Node, questions: list[Question]) -> Conversation:
    messages = history["chat_history"] if isinstance(history.value, dict) else history
    turns: list[Turn] = []
    for message in messages.items():
        role = message.text("role")
        if role in SPEAKERS:
            turns.append(Turn(role, _text(message["content"]), f"D1:{len(turns) + 1}"))
        elif role != "system":
            raise message["role"].error(f"{role!r} is none of user, assistant and system.")
    session = Session(1, "", tuple(turns))
    return Conversation(link, SPEAKERS, (session,), tuple(questions), (), one_bank=True)


def _text(content: Node) -> str:
    """Returns a message's text; of one in parts, those that are text."""
    if isinstance(content.value, str):
        return content.value
    parts = [part for part in content.items() if part.of(dict).value.get("type") == "text"]
    return " ".join(part.text("text") for part in parts)
