"""Prompts by which systems manage memory: files of the package, filled with texts.

They have the form of the agents' prompt files (`agents/templates.py`). What fills a slot is
folded to one line. None of them may ever show a question, its category, its evidence or its gold
answer; the one exception is `keywords`, which also words the search for a question.
"""

import functools
import importlib.resources
from collections.abc import Mapping, Sequence

from memr1_jax.agents.prompt_files import PromptText, fill_line, fill_text, parse_prompt
from memr1_jax.bench.systems.protocol import Call
from memr1_jax.errors import UserError
from memr1_jax.text.plain import one_line

_FOLDER = "prompts"


def management_prompt_names() -> list[str]:
    """Lists the prompt files of this package."""
    folder = importlib.resources.files("memr1_jax.bench.systems") / _FOLDER
    return sorted(file.name[:-4] for file in folder.iterdir() if file.name.endswith(".txt"))


@functools.cache
def management_prompt(name: str) -> PromptText:
    """Reads the prompt file `name`; UserError where there is none."""
    if name not in management_prompt_names():
        names = ", ".join(management_prompt_names())
        raise UserError(
            f"There is no prompt named {name!r} for memory management; choose: {names}."
        )
    folder = importlib.resources.files("memr1_jax.bench.systems") / _FOLDER
    return parse_prompt(name, (folder / f"{name}.txt").read_text(encoding="utf-8"))


def prompt_digests() -> dict[str, str]:
    """Digests every prompt file of this package, to be stored with results."""
    return {name: management_prompt(name).digest for name in management_prompt_names()}


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
