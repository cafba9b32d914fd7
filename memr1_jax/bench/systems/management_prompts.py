"""Prompts by which systems manage memory: files of the package, filled with texts.

They are prompt files with a head, like those of the agents (`agents/prompt_files.py`). What fills a
slot is folded to one line. None of them may ever show a question, its category, its evidence or its
gold answer; the one exception is `keywords`, which also words the search for a question.
"""

import functools
from collections.abc import Mapping, Sequence

from memr1_jax.agents.prompt_files import (
    PromptText,
    Role,
    fill_line,
    fill_text,
    find_prompt,
    prompt_names,
)
from memr1_jax.bench.systems.protocol import Call
from memr1_jax.text.plain import one_line

PACKAGE = "memr1_jax.bench.systems"
_TURNS = {"text"}, {"role", "speaker", "text"}
# Prompts for facts may be one's own; those of a system's stages are filled where they are called.
ROLES = {
    "extraction": Role({"turns": _TURNS}, texts=frozenset({"time", "person"})),
    "management": None,
}


@functools.cache
def management_prompt(name: str, role: str = "management") -> PromptText:
    """Reads a prompt file of this package, or with a path one's own.

    Raises:
      UserError: there is no such file, or it is not what `role` says.
    """
    return find_prompt(name, role, PACKAGE, ROLES)


def extraction_prompt(name: str) -> PromptText:
    """Reads the prompt that asks for facts: the file `facts_<name>`, or that of a path."""
    full = f"facts_{name}"
    return management_prompt(full if full in prompt_names(PACKAGE) else name, "extraction")


def prompt_digests() -> dict[str, str]:
    """Digests every prompt file of this package, to be stored with results."""
    return {name: find_prompt(name, "", PACKAGE, ROLES).digest for name in prompt_names(PACKAGE)}


def management_call(
    max_tokens: int, model: str, stage: str, /, *, prompt: str = "", **slots
) -> Call:
    """Builds a call of a stage of memory management, its prompt filled; see `fill_prompt`.

    The prompt is the file of the stage's name, or that named by `prompt`.
    """
    messages = fill_prompt(management_prompt(prompt or stage), **slots)
    return Call(stage, messages, max_tokens, model)


def fill_prompt(
    prompt: PromptText, **slots: str | Sequence[Mapping[str, str]]
) -> tuple[tuple[str, str], ...]:
    """Returns the messages of a prompt, the last one with its slots filled.

    A string is put in on one line. A sequence is a list slot, each item the fields of an entry.
    """
    *fixed, (role, text) = prompt.messages
    filled = {}
    for name, value in slots.items():
        if isinstance(value, str):
            filled[name] = one_line(value)
        else:
            lines = "".join(fill_line(prompt.entries[name], fields) for fields in value)
            filled[name] = lines or prompt.empty.get(name, "")
    return (*fixed, (role, fill_text(text, filled)))
