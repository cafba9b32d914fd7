"""BEAM (arXiv 2510.27246): long chats, and two questions on each of ten abilities, with rubrics.

A chat is a folder `N` with `chat.json` and `probing_questions/probing_questions.json`, as in
`chats/100K` of mohammadtavakoli78/BEAM on GitHub, whose files this reader follows. On the hub
(Mohammadta/BEAM) a chat is a row with `chat` and, as the text of a Python literal,
`probing_questions`; that form was taken from the authors' download script and not tried on the
real tables. The repository states no licence.

    chat.json: [{"batch_number": 1, "turns": [[{"role", "id", "content", "time_anchor"?}, ...]]}]
    probing_questions.json: {"knowledge_update": [{"question", "answer", "rubric": [...],
                             "source_chat_ids": [ids] or {name: [ids]}}, ...], ...}
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memr1_jax.data.nodes import Node, read_json, read_records
from memr1_jax.data.notes import Note
from memr1_jax.data.published_sets import PublishedSet, files_in
from memr1_jax.data.types import Conversation, Question, Session, Turn

SPEAKERS = ("user", "assistant")
KINDS = (
    *("abstention", "contradiction_resolution", "event_ordering", "information_extraction"),
    *("instruction_following", "knowledge_update", "multi_session_reasoning"),
    *("preference_following", "summarization", "temporal_reasoning"),
)
# Where each kind of question keeps the answer that its authors had in mind.
_ANSWERS = ("answer", "ideal_response", "ideal_answer", "ideal_summary", "expected_compliance")
_PLAN = re.compile(r"\s*->->\s*[\d,.\s]*$")  # the place in the authors' plan, after a message
_QUESTIONS = "probing_questions.json"
LOST = "source_chat_ids that name no message"
NO_RUBRIC = "questions without a rubric, which are judged by their answer"

BEAM = {
    size: PublishedSet(
        title=f"BEAM {size}",
        name=f"chats/{size}",
        home="mohammadtavakoli78/BEAM on GitHub, or as hf:Mohammadta/BEAM/" + size,
        licence="no licence file",
        counts={"conversations": chats, "questions": 20 * chats},
    )
    for size, chats in {"100K": 20, "500K": 35, "1M": 35}.items()
}


def load_beam(path: Path, published: PublishedSet) -> tuple[list[Conversation], list[Path]]:
    """Reads the chats of one size, from a folder or from lines that the hub's rows became."""
    if path.is_file():
        return [_of_row(row) for row in read_records(path)], [path]
    files, conversations = [], []
    for questions in files_in(path, _QUESTIONS, published):
        folder = questions.parent.parent
        cut = folder / "chat_trunecated.json"  # as the authors spell it; it goes first there too
        chat = cut if cut.exists() else folder / "chat.json"
        conversations.append(_conversation(folder.name, read_json(chat), read_json(questions)))
        files += [chat, questions]
    return conversations, files


def _of_row(row: Node) -> Conversation:
    identity, asked = row.written("conversation_id"), row["probing_questions"]
    if isinstance(asked.value, str):
        try:
            asked = Node(ast.literal_eval(asked.value), asked.place)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise asked.error(f"this is no Python literal of questions ({error}).") from error
    return _conversation(identity, row["chat"], asked)


def _conversation(identity: str, chat: Node, asked: Node) -> Conversation:
    sessions, places, time = [], {}, ""
    for number, batch in enumerate(chat.items(), start=1):
        turns = []
        for message in _messages(batch["turns"] if isinstance(batch.value, dict) else batch):
            dia_id = f"D{number}:{len(turns) + 1}"
            if message.value.get("time_anchor"):
                time = message.text("time_anchor").replace("-", " ")
            if message.value.get("id") is not None:
                places.setdefault(message["id"].of(int).value, dia_id)
            role = message.text("role")
            if role not in SPEAKERS:
                raise message["role"].error(f"{role!r} is none of user and assistant.")
            turns.append(Turn(role, _PLAN.sub("", message.text("content")), dia_id, time=time))
        sessions.append(Session(number, turns[0].time if turns else time, tuple(turns)))
    notes: list[Note] = []
    questions: list[Question] = []
    for kind in asked.of(dict).value:
        if kind not in KINDS:
            raise asked.error(f"{kind[:80]!r} is none of the abilities {', '.join(KINDS)}.")
        for item in asked[kind].items():
            questions.append(_question(item, identity, kind, len(questions), places, notes))
    return Conversation(
        identity,
        SPEAKERS,
        tuple(sessions),
        tuple(questions),
        (),
        one_bank=True,
        notes=tuple(notes),
    )


def _messages(node: Node) -> Iterator[Node]:
    """Yields messages from lists of them, nested as deeply as they may be."""
    for item in node.items():
        if isinstance(item.value, list):
            yield from _messages(item)
        else:
            yield item.of(dict)


def _question(item: Node, identity, kind, index, places: dict[int, str], notes) -> Question:
    named = list(dict.fromkeys(_numbers(item.of(dict).value.get("source_chat_ids"))))
    lost = [number for number in named if number not in places]
    if lost:
        notes.append(Note(LOST, item.place, str(lost[0])))
    found = {places[number] for number in named if number in places}
    order = {dia_id: place for place, dia_id in enumerate(places.values())}
    answer = next((item.written(name) for name in _ANSWERS if name in item), "")
    rubric = tuple(n.of(str).value for n in (item["rubric"].items() if "rubric" in item else ()))
    if not rubric:
        notes.append(Note(NO_RUBRIC, item.place))
    return Question(
        question=item.filled("question"),
        answer=answer,
        category=0,
        evidence=tuple(sorted(found, key=order.__getitem__)),
        index=index,
        id=f"{identity}_{kind}_{index}",
        kind=kind,
        abstain=kind == "abstention",
        rubric=rubric,
    )


def _numbers(value: Any) -> Iterator[int]:
    """Yields the message ids in a list, or in a dictionary of such lists."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
