"""Target responses of the agents as text: operations in both schemas, distilled answers."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from memr1_jax.text.events import Event

LABEL = "**Answer:**"  # what an answer comes after


class Written(NamedTuple):
    """An operation as a response states it: `id` is that of a shown memory, or -1."""

    event: Event
    id: int
    text: str


def compact_response(operations: Sequence[Written]) -> str:
    """Writes the operations in the compact schema: one JSON object a line."""
    lines = []
    for event, place, text in operations:
        fields: dict[str, str | int] = {"op": event.name}
        if place >= 0:
            fields["id"] = place
        if text:
            fields["text"] = text
        lines.append(json.dumps(fields, ensure_ascii=False))
    return "\n".join(lines)


def full_response(
    operations: Sequence[Written], memories: Sequence[str], *, old_memory: bool
) -> str:
    """Writes operations in the full schema: all shown memories, changed or not, then new ones.

    With `old_memory` an UPDATE also repeats the former text, as the prompt asks.
    """
    entries = [
        {"id": str(place), "text": text, "event": Event.NONE.name}
        for place, text in enumerate(memories)
    ]
    for event, place, text in operations:
        if event == Event.ADD:
            entries.append({"id": str(len(entries)), "text": text, "event": event.name})
        elif event == Event.UPDATE:
            entries[place] |= {"text": text, "event": event.name}
            entries[place] |= {"old_memory": memories[place]} if old_memory else {}
        elif event == Event.DELETE:
            entries[place]["event"] = event.name
    return json.dumps({"memory": entries}, ensure_ascii=False)


def distilled_answer(selection: str, memories: Sequence[tuple[int, str, str]], gold: str) -> str:
    """Writes selected memories (speaker 0 or 1, time stamp, text) and the answer.

    `selection` is that of the prompt (`PromptHead`): the texts on one "line", "lists" of both
    speakers, or "none" for the answer alone.
    """
    label = f"{LABEL} {gold}"
    if selection == "none":
        return label
    if selection == "line":
        return " ".join([*(text for _, _, text in memories), label])
    lines = []
    for speaker, person in enumerate(("first", "second")):
        lines.append(f"Selected memories of the {person} person:")
        lines += [f"- {time}: {text}" for owner, time, text in memories if owner == speaker]
    return "\n".join([*lines, label])
