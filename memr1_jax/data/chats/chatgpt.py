"""Reads ChatGPT's `conversations.json`: trees of messages, each by the branch that was shown last.

A message that was edited, or an answer that was made again, begins another branch of its tree;
`current_node` is the leaf of the branch that the user saw last.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from memr1_jax.data.chats.exported_chat import Chat, Said, moment, spoken
from memr1_jax.data.nodes import Node
from memr1_jax.data.notes import Note

NAME = "ChatGPT's conversations.json"
_TEXTS = ("text", "multimodal_text")


def fits(value: Any) -> bool:
    """Tells whether a file's first record is of this form."""
    return isinstance(value, dict) and isinstance(value.get("mapping"), dict)


def read(records: Iterable[Node], notes: list[Note]) -> Iterator[Chat]:
    """Reads the branch of each conversation that was shown last."""
    for number, record in enumerate(records, 1):
        mapping = record["mapping"].of(dict)
        said: list[Said] = []
        for name in _branch(record, mapping):
            node = mapping[name]
            if node.value.get("message") is not None:
                said += _said(node["message"], notes)
        found = record.value.get("conversation_id") or record.value.get("id")
        yield Chat(str(found or f"chat-{number}"), tuple(said), record.place)


def _branch(record: Node, mapping: Node) -> list[str]:
    """Lists the nodes from the root to the current leaf."""
    name = record.value.get("current_node")
    if name is None and mapping.value:
        name = max(mapping.value, key=lambda key: _created(mapping.value[key]))
    found: list[str] = []
    while name is not None:
        if not isinstance(name, str) or name not in mapping.value:
            raise record["mapping"].error(f"there is no node {name!r}, which another one names.")
        if name in found:
            raise mapping[name].error("this node is its own ancestor.")
        found.append(name)
        name = mapping[name].of(dict).value.get("parent")
    return found[::-1]


def _created(node: Any) -> float:
    message = node.get("message") if isinstance(node, dict) else None
    time = message.get("create_time") if isinstance(message, dict) else None
    return time if isinstance(time, (int, float)) else 0.0


def _said(message: Node, notes: list[Note]) -> list[Said]:
    role = message["author"].text("role")
    content = message["content"].of(dict)
    more = message.value.get("metadata")
    hidden = isinstance(more, dict) and more.get("is_visually_hidden_from_conversation")
    if hidden or message.value.get("recipient", "all") != "all":
        role = "tool"
    if content.value.get("content_type") not in _TEXTS:  # code, its output, reasoning
        role = "tool"
    parts = content["parts"].items() if role != "tool" and "parts" in content else []
    when = moment(message.value.get("create_time"), message.place, notes)
    return spoken(message.place, role, "\n".join(map(_part, parts)), when, notes)


def _part(part: Node) -> str:
    """Returns the text of a part; a picture has none, a spoken message has what was understood."""
    if isinstance(part.of(str, dict).value, str):
        return part.value
    text = part.value.get("text")
    return text if isinstance(text, str) else ""
