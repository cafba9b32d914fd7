"""A chat from another program: who said what, and when."""

import dataclasses
from typing import Any

from memr1_jax.data.nodes import Node
from memr1_jax.data.notes import Note
from memr1_jax.data.times import read_times

MACHINERY = ("system", "developer", "tool", "function")  # roles that are no part of a dialogue
ROLES = {"human": "user", **dict.fromkeys(("gpt", "chatgpt", "ai", "bot", "model"), "assistant")}
SKIPPED = "turns of system and tool, which are no part of a dialogue and are left out"
EMPTY = "messages without text, which are left out"
UNDATED = "times that cannot be read, and are left out"
_MOST_SECONDS = 1e11  # since 1970; larger numbers are milliseconds
_TEXTS = ("text", "input_text", "output_text")  # of OpenAI's parts


@dataclasses.dataclass(frozen=True)
class Said:
    """A message; `time` is ISO 8601 in UTC, or empty; a program's `role` is "assistant"."""

    speaker: str
    text: str
    time: str = ""
    role: str = "user"


@dataclasses.dataclass(frozen=True)
class Chat:
    """Messages in their order; `place` is where they stand in the file."""

    id: str
    messages: tuple[Said, ...]
    place: str

    def as_own(self) -> Node | None:
        """Returns the chat in the form of one's own dialogues; None unless two people speak."""
        roles = {said.speaker: said.role for said in self.messages}
        if list(roles.values()) == ["user"]:
            roles.setdefault("assistant", "assistant")
        one_bank = "assistant" in roles.values()
        speakers = sorted(roles, key=lambda name: roles[name] == "assistant")
        if len(speakers) != 2:
            return None
        turns = [
            {
                "speaker": said.speaker,
                "text": said.text,
                **({"time": said.time} if said.time else {}),
            }
            for said in self.messages
        ]
        record = {"id": self.id, "speakers": speakers, "turns": turns, "one_bank": one_bank}
        return Node(record, self.place)


def spoken(
    place: str, role: str, text: str, time: str, notes: list[Note], name: str = ""
) -> list[Said]:
    """Makes a message of a chat with an assistant; none if it is empty or a tool's.

    Args:
      place: where it stands, for notes.
      role: as the format names it.
      text: what was said.
      time: see `moment`.
      notes: gets what is left out.
      name: of the speaker; the role by default.
    """
    role = ROLES.get(role.strip().lower(), role.strip().lower())
    if role in MACHINERY:
        notes.append(Note(SKIPPED, place))
        return []
    if not text.strip():
        notes.append(Note(EMPTY, place))
        return []
    return [Said(name.strip() or role, text.strip(), time, role)]


def moment(value: Any, place: str, notes: list[Note]) -> str:
    """Spells a time in ISO 8601: a text, or seconds or milliseconds since 1970; "" for none."""
    if value is None or value == "" or isinstance(value, bool):
        return ""
    if isinstance(value, (int, float)):
        value = f"{value / 1000 if value > _MOST_SECONDS else value:.6f}"
    (read,) = read_times([value]) if isinstance(value, str) else (None,)
    if read is None:
        notes.append(Note(UNDATED, place, str(value)))
    return read.isoformat() if read else ""


def text_of(content: Node, kinds: tuple[str, ...] = _TEXTS) -> str:
    """Returns the text of a message: a string, or a list of strings and of parts with a `text`.

    Args:
      content: what stands there; null is empty.
      kinds: the `type`s of parts that are read; an empty tuple stands for all.

    Raises:
      UserError: it is neither.
    """
    if content.value is None:
        return ""
    if isinstance(content.of(str, list).value, str):
        return content.value
    texts = []
    for part in content.items():
        if isinstance(part.of(str, dict).value, str):
            texts.append(part.value)
        elif not kinds or part.value.get("type", "text") in kinds:
            texts.append(part.text("text"))
    return "".join(texts) if not kinds else "\n".join(texts)
