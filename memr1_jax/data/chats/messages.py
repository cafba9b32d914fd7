"""Reads lists of messages of the OpenAI form, `{"role": ..., "content": ...}`.

A file holds one list, or a list or lines of objects with `messages`, as for fine-tuning. Times are
optional: `timestamp`, `created_at`, `create_time` or `time` of a message.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from memr1_jax.data.chats.exported_chat import Chat, Said, moment, spoken, text_of
from memr1_jax.data.nodes import Node
from memr1_jax.data.notes import Note

NAME = "messages of the OpenAI form"
_TIMES = ("timestamp", "created_at", "create_time", "time")


def fits(value: Any) -> bool:
    """Tells whether a file's first record is of this form."""
    if not isinstance(value, dict):
        return False
    messages = value.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else value
    return (
        isinstance(first, dict) and "role" in first and bool({"content", "tool_calls"} & {*first})
    )


def read(records: Iterable[Node], notes: list[Note]) -> Iterator[Chat]:
    """Reads the chats; messages that stand by themselves are one chat."""
    loose: list[Said] = []
    place = ""
    for number, record in enumerate(records, 1):
        if "messages" in record:
            said = [s for node in record["messages"].items() for s in _said(node, notes)]
            name = record.value.get("id") or record.value.get("conversation_id")
            yield Chat(str(name or f"chat-{number}"), tuple(said), record.place)
        else:
            place = place or record.place
            loose += _said(record, notes)
    if place:
        yield Chat("chat-1", tuple(loose), place)


def _said(node: Node, notes: list[Note]) -> list[Said]:
    content = text_of(node["content"]) if "content" in node else ""
    time = next((node.value[key] for key in _TIMES if node.value.get(key) is not None), None)
    name = node.text("name") if node.value.get("name") is not None else ""
    when = moment(time, node.place, notes)
    return spoken(node.place, node.text("role"), content, when, notes, name)
