"""Reads prompt files: what they say they are, and their text.

A prompt file is a head and a list of sections. The head is a few lines `key: value`, see
`PromptHead`. `[system]`, `[user]` and `[assistant]` are messages for the model's own chat template;
`{name}` marks a slot of the last one. `[entry name]` is the line that one item of a list slot
becomes (fields `{id}`, `{time}`, `{text}`), and `[empty name]` what stands there when the list is
empty. A field between double quotes is escaped as in JSON.
"""

import dataclasses
import hashlib
import importlib.resources
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.text.plain import folded

SLOT = re.compile(r"\{(\w+)\}")

_SECTION = re.compile(r"^\[(system|user|assistant|entry \w+|empty \w+)\]\n", re.MULTILINE)
_AGENTS = "memr1_jax.agents"  # the package with the agents' prompts
_FIELD = re.compile(r'"\{(\w+)\}"|\{(\w+)\}')


@dataclasses.dataclass(frozen=True)
class Role:
    """Says what the prompts of a role have.

    `lists` are slots of several items, each with the fields that an item must and may show; `texts`
    are slots of one text, `optional` those that a prompt may leave out. `keys` are those of a head
    besides the role, with their values where these are known.
    """

    lists: Mapping[str, tuple[set[str], set[str]]] = dataclasses.field(default_factory=dict)
    texts: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    keys: Mapping[str, tuple[str, ...] | None] = dataclasses.field(default_factory=dict)


_MEMORY = {"text"}, {"text", "time"}
ROLES = {
    "manager": Role(
        {"memories": ({"id", "text"}, {"id", "text"}), "facts": ({"text"}, {"text"})},
        keys={"schema": ("compact", "full"), "facts": None},
    ),
    "answer": Role(
        {"memories_1": _MEMORY, "memories_2": _MEMORY},
        frozenset({"speaker_1", "speaker_2", "question"}),
        keys={"selection": ("line", "lists", "none"), "plain": None},
    ),
    "judge": Role(texts=frozenset({"question", "gold", "answer"})),
    "facts": Role(texts=frozenset({"speaker", "turn"}), optional=frozenset({"time"})),
}


@dataclasses.dataclass(frozen=True)
class PromptHead:
    """Describes a prompt file, in its own words.

    `role`: one of `ROLES`, or of a memory system's; `schema` of a manager's output: "compact" or
    "full"; `facts`, the prompt that extracts facts for a manager; `selection`, the memories that
    come before an answer: in a "line", in "lists" of both speakers, or "none"; `plain`, the answer
    prompt that asks the same without a selection. A path is relative to the file that names it.
    """

    role: str = ""
    schema: str = ""
    facts: str = ""
    selection: str = ""
    plain: str = ""


@dataclasses.dataclass(frozen=True)
class PromptText:
    """Holds a prompt file as text: messages `(role, text)`, entry lines and empty texts by slot.

    `digest` is that of the text without the head, which came later: the digests of older results
    stay valid.
    """

    name: str
    digest: str
    messages: tuple[tuple[str, str], ...]
    entries: Mapping[str, str]
    empty: Mapping[str, str]
    head: PromptHead = PromptHead()


def prompt_names(package: str = _AGENTS) -> list[str]:
    """Lists the prompt files in a package by name: by default those of the agents."""
    return sorted(
        file.name[:-4] for file in _folder(package).iterdir() if file.name.endswith(".txt")
    )


def _folder(package: str):
    return importlib.resources.files(package) / "prompts"


def read_prompt(name: str, role: str = "") -> PromptText:
    """Reads a prompt file of an agent and checks that it is what its head says.

    Args:
      name: one of `prompt_names()`, less the role where it is given; or the path of a file, which
        holds a slash or ends in .txt.
      role: what the prompt must be for, see `PromptHead`.

    Raises:
      UserError: there is no such file, its head or a slot is missing, or it has another role.
    """
    return find_prompt(f"{role}_{name}" if role and not _is_path(name) else name, role)


def find_prompt(
    name: str, role: str = "", package: str = _AGENTS, roles: Mapping[str, Role | None] = ROLES
) -> PromptText:
    """Reads a prompt file of a package by its whole name, or any by its path.

    Args:
      name: one of `prompt_names(package)`, or a path.
      role: what the prompt must be for; empty: any of the roles.
      package: where the named files are.
      roles: what the prompts of each role have; None where the caller knows.

    Raises:
      UserError: as for `read_prompt`.
    """
    if _is_path(name):
        prompt = parse_prompt(name, _read(Path(name)))
        named = {key: _beside(name, getattr(prompt.head, key)) for key in ("facts", "plain")}
        prompt = dataclasses.replace(prompt, head=dataclasses.replace(prompt.head, **named))
    else:
        if name not in prompt_names(package):
            raise UserError(
                f"There is no prompt named {name!r}; choose one of {prompt_names(package)}, or give"
                " the path of a file of your own."
            )
        file = _folder(package) / f"{name}.txt"
        prompt = parse_prompt(name, file.read_text(encoding="utf-8"))
    _check(prompt, role, roles)
    return prompt


def _is_path(name: str) -> bool:
    return os.sep in name or "/" in name or name.endswith(".txt")


def _beside(path: str, name: str) -> str:
    """Finds the prompt that the head of a file names: a path is relative to that file."""
    if not _is_path(name) or name.startswith("~"):
        return name
    return os.path.join(os.path.dirname(path), name)


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, RuntimeError, ValueError) as error:
        raise UserError(
            f"The prompt file {path} cannot be read ({error}). Give a text file in UTF-8."
        ) from error


def parse_prompt(name: str, source: str) -> PromptText:
    """Takes the text of a prompt file apart; a file without a head has an empty one."""
    first = _SECTION.search(source)
    begin = first.start() if first else len(source)
    source, head = source[begin:], _parse_head(name, source[:begin])
    pieces = _SECTION.split(source)
    messages, entries, empty = [], {}, {}
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        kind, _, slot = title.partition(" ")
        if kind == "entry":
            entries[slot] = body
        elif kind == "empty":
            empty[slot] = body
        else:
            messages.append((kind, body.removesuffix("\n")))
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    return PromptText(name, digest, tuple(messages), entries, empty, head)


def _parse_head(name: str, text: str) -> PromptHead:
    known = [field.name for field in dataclasses.fields(PromptHead)]
    values = {}
    for line in filter(str.strip, text.split("\n")):
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or key not in known or key in values:
            raise UserError(
                f"The head of the prompt {name!r} has the line {line.strip()!r}. Before the first"
                f" section, each line is one of {', '.join(known)}, a colon and a value."
            )
        values[key] = value
    return PromptHead(**values)


def _check(prompt: PromptText, role: str, roles: Mapping[str, Role | None]) -> None:
    """Raises UserError unless the prompt has the role, its head and its slots."""
    head = prompt.head
    if head.role not in roles or role not in ("", head.role):
        found = f"the role {head.role!r}" if head.role else "no role"
        wanted = role or "ROLE"
        raise UserError(
            f"The prompt {prompt.name!r} has {found} in its head, the lines before the first"
            f" section. It needs the line 'role: {wanted}', of {', '.join(roles)}."
        )
    if (has := roles[head.role]) is None:
        return
    for key, values in has.keys.items():
        if values and getattr(head, key) not in values:
            raise UserError(
                f"The head of the prompt {prompt.name!r} needs the line '{key}: VALUE' with one of"
                f" {', '.join(values)}; it says {getattr(head, key)!r}."
            )
    text = prompt.messages[-1][1] if prompt.messages else ""
    slots = SLOT.findall(text)
    wanted = {*has.lists, *has.texts, *(has.optional & set(slots))}
    if sorted(slots) != sorted(wanted):
        raise UserError(
            f"The last message of the prompt {prompt.name!r} has the slots {slots}, and needs each"
            f" of {sorted(wanted)} once."
        )
    for slot, (needed, allowed) in has.lists.items():
        fields = set(SLOT.findall(prompt.entries.get(slot, "")))
        if not needed <= fields <= allowed:
            raise UserError(
                f"The prompt {prompt.name!r} needs a section [entry {slot}], a line that shows"
                f" {sorted(needed)} and at most {sorted(allowed)} in braces; it shows"
                f" {sorted(fields)}."
            )


def plain_prompt(name: str) -> str:
    """Names the answer prompt that asks as `name` does, but without a selection of memories."""
    head = read_prompt(name, "answer").head
    if head.selection == "none":
        return name
    if not head.plain:
        raise UserError(
            f"The prompt {name!r} does not say which prompt asks the same without a selection of"
            " memories. Add the line 'plain: NAME' to its head."
        )
    return head.plain


def facts_prompt(manager_prompt: str) -> str:
    """Names the prompt that extracts facts for a manager; "compact" where its head names none."""
    return read_prompt(manager_prompt, "manager").head.facts or "compact"


def fill_text(text: str, slots: Mapping[str, str]) -> str:
    """Replaces the marks `{name}` by texts."""
    return SLOT.sub(lambda mark: slots[mark[1]], text)


def fill_line(line: str, fields: Mapping[str, str]) -> str:
    """Fills the line of one item; every field stays on it, and one space in front of it stays.

    A field between double quotes is part of a JSON string and is escaped.
    """

    def write(mark):
        text = folded(fields[mark[1] or mark[2]])
        return json.dumps(text, ensure_ascii=False) if mark[1] else text

    return _FIELD.sub(write, line)
