"""Reads ShareGPT's form: objects whose `conversations` are lists of `from` and `value`."""

from collections.abc import Iterable, Iterator
from typing import Any

from memr1_jax.data.chats.exported_chat import Chat, spoken
from memr1_jax.data.nodes import Node
from memr1_jax.data.notes import Note

NAME = "ShareGPT"
_MORE = {"bing": "assistant", "bard": "assistant", "function_call": "tool", "observation": "tool"}


def fits(value: Any) -> bool:
    """Tells whether a file's first record is of this form."""
    turns = value.get("conversations") if isinstance(value, dict) else None
    return isinstance(turns, list) and all(isinstance(t, dict) and "from" in t for t in turns[:1])


def read(records: Iterable[Node], notes: list[Note]) -> Iterator[Chat]:
    """Reads the chats."""
    for number, record in enumerate(records, 1):
        said = []
        for node in record["conversations"].items():
            who = node.text("from")
            said += spoken(node.place, _MORE.get(who, who), node.text("value"), "", notes)
        name = record.value.get("id")
        yield Chat(str(f"chat-{number}" if name is None else name), tuple(said), record.place)
