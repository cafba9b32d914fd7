"""Reads Telegram's JSON export (`result.json`), of one chat or of a whole account."""

from collections.abc import Iterable, Iterator
from typing import Any

from memr1_jax.data.chats.exported_chat import EMPTY, Chat, Said, moment, text_of
from memr1_jax.data.nodes import Node
from memr1_jax.data.notes import Note

NAME = "Telegram's JSON"


def fits(value: Any) -> bool:
    """Tells whether a file's first record is of this form."""
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("chats"), dict) and "list" in value["chats"]:
        return True
    messages = value.get("messages")
    return isinstance(messages, list) and "type" in value and "id" in value


def read(records: Iterable[Node], notes: list[Note]) -> Iterator[Chat]:
    """Reads the chats; notices of the service and messages without text are left out."""
    for record in records:
        whole = "chats" in record
        for chat in record["chats"]["list"].items() if whole else [record]:
            said = [s for node in chat["messages"].items() for s in _said(node, notes)]
            yield Chat(_name(chat), tuple(said), chat.place)


def _name(chat: Node) -> str:
    """Names a chat; two chats may be called the same, so that its number belongs to it."""
    name, number = chat.value.get("name"), chat.value.get("id")
    return " ".join(str(part) for part in (name, number) if part is not None) or "chat"


def _said(node: Node, notes: list[Note]) -> list[Said]:
    if node.text("type") != "message":
        return []
    text = text_of(node["text"], kinds=()).strip()
    if not text:
        notes.append(Note(EMPTY, node.place))
        return []
    speaker = node.value.get("from")
    name = str(speaker).strip() if speaker else "Deleted account"
    exact = node.value.get("date_unixtime")
    when = moment(node.value.get("date") if exact is None else exact, node.place, notes)
    return [Said(name, text, when)]
