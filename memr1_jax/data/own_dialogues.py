"""A user's own dialogues: JSON lines, one conversation each; `experiments/README.md` shows them."""

import dataclasses
import os
from collections.abc import Iterator, Sequence

from memr1_jax.data.chats.exported_chat import Chat, Said
from memr1_jax.data.chats.formats import none_fits, read_chats, records_of
from memr1_jax.data.locomo import ADVERSARIAL, SPLITS
from memr1_jax.data.nodes import Node
from memr1_jax.data.notes import Note, tell
from memr1_jax.data.own_turns import (
    SESSION_GAP,
    Dialogue,
    chat_role,
    check_names,
    read_turns,
    text,
)
from memr1_jax.data.references import resolve_all
from memr1_jax.data.times import read_times
from memr1_jax.data.types import Conversation, Fact, Question
from memr1_jax.errors import UserError

QUESTION_LEFT_OUT = "questions that are left out, as their evidence names no turn"
NOT_TWO = "chats that are not of two people, which are left out"
FACT_LEFT_OUT = "facts that are left out, as their sources name no turn"

_LONGEST_GAP = 1_000_000
_SHOWN = 10  # complaints that are listed
_TURNS = ("sessions", "turns")
_CONVERSATION = ("id", "speakers", "sessions", "turns", "questions", "facts", "split", "one_bank")
_QUESTION = (
    *("question", "answer", "evidence", "category", "kind", "id", "time"),
    *("options", "abstain", "after"),
)
_FACT = ("speaker", "text", "sources")


def load_own_dialogues(
    path: str | os.PathLike, session_gap: float = SESSION_GAP, drop_unknown_turns: bool = False
) -> list[Conversation]:
    """Reads a user's own dialogues, and warns of what is left out.

    A line is an object with `sessions`, each with `turns` and a `time`, and with `questions`. All
    other fields have defaults: ids are counted, the speakers are the two who speak. Instead of
    sessions, `turns` may stand at the top; then a pause between two turns begins a session. The
    names of chat formats, `role` and `content`, are read as `speaker` and `text`; a chat of "user"
    and "assistant" has one bank. The lines may also be the elements of one JSON array, and a file
    may be in one of the formats of `chats`: the chats in it that are of two people are read.

    Args:
      path: the file.
      session_gap: hours of a pause after which a session begins.
      drop_unknown_turns: whether questions and facts that name a missing turn are left out and
        counted instead of refused.

    Raises:
      UserError: something is missing, wrong or empty; the message names file, line and field. Ids
        of turns that do not exist are listed together.
    """
    if not 0 <= session_gap <= _LONGEST_GAP:
        raise UserError(f"--session_gap={session_gap} must be hours, from 0 to {_LONGEST_GAP:,}.")
    reader = _Reader(session_gap, drop_unknown_turns)
    conversations: dict[str, Conversation] = {}
    for line in _records(path, reader.notes):
        conversation = reader.conversation(line, len(conversations))
        if conversation.id in conversations:
            where = line["id"] if "id" in line else line
            raise where.error(f"an earlier line has the id {conversation.id!r} too.")
        conversations[conversation.id] = conversation
    if not conversations:
        reason = "; ".join(f"{note.what}: {note.place}" for note in reader.notes[:1])
        raise UserError(f"{path} holds no conversation: {reason or 'it has no line with content'}.")
    reader.check()
    tell(path, reader.notes)
    return list(conversations.values())


def _records(path: str | os.PathLike, notes: list[Note]) -> Iterator[Node]:
    """Yields the conversations of a file of own dialogues, or of another program's chats."""
    chats = read_chats(path)
    if chats is None:
        yield from records_of(path)
        return
    for chat in chats:
        record = chat.as_own()
        if record is None:
            notes.append(Note(NOT_TWO, chat.place, chat.id))
        else:
            yield record


def load_chats(path: str | os.PathLike) -> list[Chat]:
    """Reads chats of any number of people: of another program, or one's own dialogues.

    Raises:
      UserError: as `load_own_dialogues` does, or no format fits.
    """
    found = read_chats(path)
    if found is not None:
        return list(found)
    first = next(records_of(path), None)
    if first is None or not isinstance(first.value, dict) or not {*_TURNS} & {*first.value}:
        raise none_fits(path)
    return [
        Chat(conversation.id, tuple(_said(conversation)), f"{path}, {conversation.id}")
        for conversation in load_own_dialogues(path)
    ]


def _said(conversation: Conversation) -> Iterator[Said]:
    times = read_times([s.time_of(t) for s in conversation.sessions for t in s.turns])
    for turn, time in zip(conversation.turns, times, strict=True):
        role = "assistant" if turn.speaker == "assistant" else "user"
        yield Said(turn.speaker, turn.content, time.isoformat() if time else "", role)


def turns_as_facts(conversation: Conversation) -> Conversation:
    """Notes every turn as a fact of its speaker, if nothing else is noted.

    Memory banks are filled from facts; a benchmark's annotations or a language model make better
    ones than bare turns.
    """
    if conversation.facts:
        return conversation
    facts = tuple(
        Fact(turn.speaker, f"{turn.speaker}: {turn.content}", session.number, (turn.dia_id,))
        for session in conversation.sessions
        for turn in session.turns
    )
    return dataclasses.replace(conversation, facts=facts)


class _Reader:
    """Reads conversations, and gathers what is to be reported about the whole file."""

    def __init__(self, session_gap: float, drop_unknown_turns: bool):
        self.notes: list[Note] = []
        self._gap, self._drop = session_gap, drop_unknown_turns
        self._unknown: list[str] = []  # complaints

    def check(self) -> None:
        """Refuses the file where a missing turn is named."""
        if not self._unknown:
            return
        listed = self._unknown[:_SHOWN]
        if more := len(self._unknown) - len(listed):
            listed.append(f"and {more} more such places.")
        listed.append(
            "Turns without an id are called D1:1, D1:2, ... by session and place. Correct the ids,"
            " or leave out these questions and facts with --drop_unknown_turns."
        )
        raise UserError("\n".join(listed))

    def conversation(self, line: Node, count: int) -> Conversation:
        check_names(line, _CONVERSATION, self.notes)
        dialogue = read_turns(line, self._gap, self.notes)
        order = {dia_id: place for place, dia_id in enumerate(dialogue.sessions_of)}
        questions = (
            self._question(item, index, order, dialogue.kept)
            for index, item in enumerate(_list(line, "questions"))
        )
        facts = (self._fact(item, dialogue, order) for item in _list(line, "facts"))
        split = text(line, "split")
        if split and split not in SPLITS:
            raise line["split"].error(f"{split!r} is none of {', '.join(SPLITS)}.")
        return Conversation(
            id=text(line, "id") or f"own-{count + 1}",
            speakers=dialogue.speakers,
            sessions=dialogue.sessions,
            questions=tuple(filter(None, questions)),
            facts=tuple(sorted(filter(None, facts), key=lambda fact: order[fact.sources[-1]])),
            one_bank=_flag(line, "one_bank", dialogue.one_bank),
            split=split,
        )

    def _question(
        self, item: Node, index: int, order: dict[str, int], kept: Sequence[int]
    ) -> Question | None:
        check_names(item, _QUESTION, self.notes)
        abstain = _flag(item, "abstain", False)
        category = item["category"].of(int).value if "category" in item else 0
        if category not in range(6):
            raise item["category"].error(
                f"{category} is none of LoCoMo's 1 to 5, nor 0 for no category."
            )
        if abstain or category == ADVERSARIAL:
            abstain, category = True, ADVERSARIAL
        after = item["after"].of(int).value if "after" in item else None
        if after is not None and not 0 <= after < len(kept):
            raise item["after"].error(f"{after} is not between 0 and the {len(kept) - 1} turns.")
        question = Question(
            question=item.filled("question"),
            answer=_answer(item, abstain),
            category=category,
            evidence=(),
            index=index,
            id=text(item, "id"),
            kind=text(item, "kind"),
            time=text(item, "time"),
            options=tuple(node.of(str).value for node in _list(item, "options")),
            abstain=abstain,
            after=None if after is None else kept[after],
        )
        named = self._named(item, "evidence", _list(item, "evidence"), order, QUESTION_LEFT_OUT)
        return None if named is None else dataclasses.replace(question, evidence=named)

    def _fact(self, item: Node, dialogue: Dialogue, order: dict[str, int]) -> Fact | None:
        check_names(item, _FACT, self.notes)
        speaker = chat_role(item.text("speaker"), dialogue.speakers)
        if speaker not in dialogue.speakers:
            raise item["speaker"].error(
                f"{speaker!r} is not one of {', '.join(dialogue.speakers)}."
            )
        listed = item["sources"].items()
        if not listed:
            raise item["sources"].error("expected ids of turns, not none.")
        said = item.filled("text")
        sources = self._named(item, "sources", listed, order, FACT_LEFT_OUT)
        if sources is None:
            return None
        return Fact(speaker, said, dialogue.sessions_of[sources[-1]], sources)

    def _named(
        self, item: Node, key: str, nodes: Sequence[Node], order: dict[str, int], left_out: str
    ) -> tuple[str, ...] | None:
        """Finds the turns that a list names; complains and returns None where one is missing."""
        named, lost = resolve_all([node.of(str).value for node in nodes], order)
        if not lost:
            return named
        if self._drop:
            self.notes.append(Note(left_out, item.place, lost[0]))
        else:
            ids = ", ".join(map(repr, lost[:_SHOWN])) + ", ..." * (len(lost) > _SHOWN)
            self._unknown.append(f"{item[key].place}: there is no turn {ids}.")
        return None


def _answer(item: Node, abstain: bool) -> str:
    if abstain and item.value.get("answer") in (None, ""):
        return ""
    answer = item.written("answer")
    if not answer.strip():
        raise item["answer"].error(
            'this is empty. Write the answer, or "abstain": true where the dialogue does not say.'
        )
    return answer


def _list(node: Node, key: str) -> list[Node]:
    return node[key].items() if node.value.get(key) is not None else []


def _flag(node: Node, key: str, default: bool) -> bool:
    return node[key].of(bool).value if key in node else default
