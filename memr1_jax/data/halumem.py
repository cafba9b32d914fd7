"""HaluMem (arXiv 2511.03506): a user's chats with an assistant, with the memories to be kept.

Every session notes the memory points that it brings and asks its own questions. Memory points are
facts, their updates gold operations. The fields are those that the README of MemTensor/HaluMem
describes for IAAR-Shanghai/HaluMem on the hub (CC BY-NC-ND 4.0); the reader was not tried on the
real files:

    {"uuid", "persona_info", "sessions": [{"start_time", "end_time",
      "dialogue": [{"role", "content", "timestamp", "dialogue_turn"}],
      "memory_points": [{"index", "memory_content", "memory_source", "is_update": "True"|"False",
                         "original_memories": [str]}],
      "questions": [{"question", "answer", "evidence": [{"memory_content"}], "question_type"}]}]}

A memory point does not say which turn it stands in, so all turns of its session are its sources.
"""

import collections
from pathlib import Path

from memr1_jax.data.nodes import Node, read_records
from memr1_jax.data.notes import Note
from memr1_jax.data.published_sets import PublishedSet, files_in
from memr1_jax.data.types import Conversation, Fact, GoldOperation, Question, Session, Turn
from memr1_jax.text.events import Event

SPEAKERS = ("user", "assistant")
_BOUNDARY = "memory boundary"  # the kind of question whose answer is that nothing is known
_FALSE = ("interference",)  # what the assistant made up: never to be remembered
LOST_ORIGINAL = "updates whose original memory is no earlier memory point"
LOST_EVIDENCE = "questions whose evidence is no memory point"

HALUMEM = {
    size: PublishedSet(
        title=f"HaluMem-{size}",
        name=f"HaluMem-{size}.jsonl",
        home=f"hf:IAAR-Shanghai/HaluMem/HaluMem-{size}.jsonl",
        licence="CC BY-NC-ND 4.0",
        counts={"conversations": 20, "questions": 3467},
    )
    for size in ("Medium", "Long")
}


def load_halumem(path: Path, published: PublishedSet) -> tuple[list[Conversation], list[Path]]:
    """Reads the users of one file; a folder may hold it under its published name."""
    files = files_in(path, published.name, published)
    return [_conversation(user) for file in files for user in read_records(file)], files


def _conversation(user: Node) -> Conversation:
    identity = user.text("uuid")
    user = user.called(identity)
    sessions: list[Session] = []
    questions: list[Question] = []
    memory = _Points()
    for item in user["sessions"].items():
        number = len(sessions) + 1
        turns = tuple(_turns(item["dialogue"], number))
        sessions.append(Session(number, item.text("start_time"), turns))
        ids = tuple(turn.dia_id for turn in turns)
        if ids and "memory_points" in item:
            for point in item["memory_points"].items():
                memory.note(point, number, ids)
        read = sum(len(session.turns) for session in sessions)
        for asked in item["questions"].items() if "questions" in item else ():
            questions.append(_question(asked, identity, len(questions), read, memory))
    return Conversation(
        identity,
        SPEAKERS,
        tuple(sessions),
        tuple(questions),
        tuple(memory.facts),
        tuple(memory.operations),
        one_bank=True,
        notes=tuple(memory.notes),
    )


class _Points:
    """The memory points of one user as facts and operations, in order."""

    def __init__(self):
        self.facts: list[Fact] = []
        self.operations: list[GoldOperation] = []
        self.notes: list[Note] = []
        self._known: dict[str, int] = {}  # the facts that hold, by what they say

    def note(self, point: Node, session: int, turns: tuple[str, ...]) -> None:
        if point.of(dict).value.get("memory_source") in _FALSE:
            return
        text, index = point.filled("memory_content"), len(self.facts)
        updates = str(point.value.get("is_update", False)).strip().lower() == "true"
        old = None
        if updates:
            originals = [node.of(str).value for node in point["original_memories"].items()]
            old = next((self._known[o] for o in originals if o in self._known), None)
            if old is None:
                self.notes.append(Note(LOST_ORIGINAL, point.place, (originals or [""])[0]))
            else:
                del self._known[self.facts[old].text]
        event = Event.ADD if old is None else Event.UPDATE
        self.facts.append(Fact("user", text, session, turns))
        self.operations.append(GoldOperation(event, index, text, old))
        self._known[text] = index


def _turns(dialogue: Node, number: int):
    for place, node in enumerate(dialogue.items(), start=1):
        role = node.text("role")
        if role not in SPEAKERS:
            raise node["role"].error(f"{role!r} is none of {', '.join(SPEAKERS)}.")
        time = node.text("timestamp") if node.value.get("timestamp") else ""
        yield Turn(role, node.text("content"), f"D{number}:{place}", time=time)


def _question(asked: Node, identity: str, index: int, read: int, memory: _Points) -> Question:
    kind = asked.text("question_type")
    sources = collections.ChainMap(*({f.text: f.sources} for f in memory.facts))
    evidence: dict[str, None] = {}
    named = asked["evidence"].items() if "evidence" in asked else []
    for node in named:
        evidence |= dict.fromkeys(sources.get(node.text("memory_content"), ()))
    if named and not evidence:
        memory.notes.append(Note(LOST_EVIDENCE, asked.place, named[0].text("memory_content")))
    return Question(
        question=asked.filled("question"),
        answer=asked.filled("answer", str, int, float),
        category=0,
        evidence=tuple(evidence),
        index=index,
        id=f"{identity}_{index}",
        kind=kind,
        abstain=kind.strip().lower() == _BOUNDARY,
        after=read,
    )
