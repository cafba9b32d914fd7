"""Reads files like MemoryBank's: people by name, each with a `history` by day.

A day is a list of objects with `query` and `response`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from memr1_jax.data.chats.exported_chat import Chat, moment, spoken
from memr1_jax.data.nodes import Node
from memr1_jax.data.notes import Note

NAME = "MemoryBank"


def fits(value: Any) -> bool:
    """Tells whether a file's first record is of this form."""
    if not isinstance(value, dict) or not value:
        return False
    people = [value] if "history" in value else list(value.values())
    return all(isinstance(p, dict) and isinstance(p.get("history"), dict) for p in people)


def read(records: Iterable[Node], notes: list[Note]) -> Iterator[Chat]:
    """Reads a chat for each person, whose name is that of the one who asks."""
    for record in records:
        people = {"": record} if "history" in record else {k: record[k] for k in record.value}
        for key, person in people.items():
            name = str(person.of(dict).value.get("name") or key or "user")
            said = []
            for day in person["history"].of(dict).value:
                when = moment(day, person["history"].place, notes)
                for node in person["history"][day].items():
                    said += spoken(node.place, "user", node.text("query"), when, notes, name)
                    said += spoken(node.place, "assistant", node.text("response"), when, notes)
            yield Chat(name, tuple(said), person.place)
