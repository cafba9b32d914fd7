"""Prompts as tokens: an instruction that never changes, and parts with slots.

A prompt file (`prompt_files`) is rendered with the model's own chat template and tokenised once, in
pieces. Everything up to the first slot is the instruction: one block of tokens for all prompts.
Slots are filled on the device.

Axis letters: n items of a list, W tokens of an item, P prompt length.
"""

import dataclasses
import datetime
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.agents.prompt_files import SLOT, PromptHead, read_prompt
from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Block
from memr1_jax.models.hf.chat_template import render_messages
from memr1_jax.models.hf.tokenizer import inner_encoder
from memr1_jax.text.json_escapes import Escapes, escape
from memr1_jax.text.segments import Packed, concatenate, pack

# Llama 3.2 and SmolLM3 tell the model today's date, so that prompts would change overnight; this is
# the date of Llama 3.1.
_DATE = datetime.date(2024, 7, 26)


@dataclasses.dataclass(frozen=True)
class Template:
    """A prompt as token ids; hashable, so static under `jit`.

    `parts` alternates fixed tokens (tuples) and names of slots (strings); `entries` maps a list
    slot to the parts of one item in the same form; `empty` to what an empty list says.
    """

    name: str
    head: PromptHead
    digest: str  # of the prompt file, to be stored with results
    instruction: tuple[int, ...]
    parts: tuple[tuple[int, ...] | str, ...]
    entries: tuple[tuple[str, tuple[tuple[int, ...] | str, ...]], ...]
    empty: tuple[tuple[str, tuple[int, ...]], ...]
    numbers: tuple[tuple[int, ...], ...]  # "0", "1", ... as tokens
    quoted: tuple[str, ...] = ()  # list slots whose entry shows the text as a JSON string

    @property
    def instruction_block(self) -> Block:
        """The instruction as the first block of a chain."""
        return Block(jnp.asarray(self.instruction, jnp.int32), jnp.int32(len(self.instruction)))

    @property
    def fixed_length(self) -> int:
        """Tokens of a prompt with empty slots, the instruction left out."""
        return sum(len(part) for part in self.parts if not isinstance(part, str))


@dataclasses.dataclass(frozen=True)
class Items:
    """Texts for a list slot: `tokens` `[n, W]`, `length` `[n]`, 0 for absent ones.

    `priority` `[n]`: 0 must stay, otherwise the largest is dropped first when space is short.
    """

    tokens: jax.Array
    length: jax.Array
    priority: jax.Array


jax.tree_util.register_dataclass(Items)


def load_template(
    name: str, tokenizer, *, role: str = "", numbers: int = 64, thinking: bool = False
) -> Template:
    """Reads the prompt file `name` and renders it with the tokenizer's own chat template.

    Args:
      name: see `read_prompt`, as for `role`.
      tokenizer: a `transformers` tokenizer with a chat template.
      role: what the prompt must be for.
      numbers: how many ids are prepared for list items.
      thinking: see `render_chat`.

    Raises:
      UserError: there is no such prompt, or the chat template refuses or drops a part of it.
    """
    prompt = read_prompt(name, role)
    *fixed, (role, text) = prompt.messages
    marked = SLOT.sub(r"<<slot:\1>>", text)  # as no chat template changes it
    rendered = render_chat(prompt.name, [*fixed, (role, marked)], tokenizer, thinking)
    inside = inner_encoder(tokenizer)

    def encode(text):
        return tuple(inside(text)) if text else ()

    instruction, *pieces = re.split(r"<<slot:(\w+)>>", rendered)
    return Template(
        name=prompt.name,
        head=prompt.head,
        digest=prompt.digest,
        instruction=tuple(tokenizer.encode(instruction, add_special_tokens=False)),
        parts=tuple(encode(piece) if index % 2 else piece for index, piece in enumerate(pieces)),
        entries=tuple((slot, _entry_parts(line, encode)) for slot, line in prompt.entries.items()),
        empty=tuple((slot, encode(text)) for slot, text in prompt.empty.items()),
        numbers=tuple(encode(str(number)) for number in range(numbers)),
        quoted=tuple(slot for slot, line in prompt.entries.items() if '"{text}"' in line),
    )


def render_chat(
    name: str, messages: Sequence[tuple[str, str]], tokenizer, thinking: bool = False
) -> str:
    """Renders messages `(role, text)` in the model's chat format; see `accepted_chat`."""
    return accepted_chat(name, messages, tokenizer, thinking)[1]


def accepted_chat(
    name: str, messages: Sequence[tuple[str, str]], tokenizer, thinking: bool = False
) -> tuple[Sequence[tuple[str, str]], str]:
    """Returns messages `(role, text)` as the model's chat format takes them, and rendered.

    They are rendered up to where the model responds. In a format without system messages their text
    stands before that of the user. A model that can reason before it responds is told whether to by
    `thinking`.

    Raises:
      UserError: the chat template refuses or drops a part of the prompt `name`.
    """
    faults = []
    for chat in dict.fromkeys((tuple(messages), _without_system(messages))):
        try:
            rendered = render_messages(
                tokenizer,
                chat,
                today=_DATE,
                date_string=_DATE.strftime("%d %b %Y"),
                enable_thinking=thinking,
            )
        except ValueError as error:
            faults.append(
                f"refuses the prompt {name!r} ({error}). Use a model whose template takes messages"
                " of a user."
            )
            continue
        dropped = sorted({role for role, text in chat if text.strip() not in rendered})
        if not dropped:
            return chat, rendered
        faults.append(
            f"drops parts of the prompt {name!r}, of the role {' and '.join(dropped)}. Use a model"
            " whose template keeps all messages."
        )
    raise UserError(f"The chat template of this tokenizer {faults[0]}")


def _without_system(messages: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Puts the texts of system messages before that of the user's next one."""
    moved, waiting = [], []
    for role, text in messages:
        if role == "system":
            waiting.append(text)
        elif role == "user":
            moved.append((role, "\n\n".join([*waiting, text])))
            waiting = []
        else:
            moved.append((role, text))
    return (*moved, *([("user", "\n\n".join(waiting))] if waiting else []))


def _entry_parts(line, encode):
    pieces = SLOT.split(line)
    return tuple(piece if i % 2 else encode(piece) for i, piece in enumerate(pieces))


def list_items(
    template: Template,
    slot: str,
    text: tuple[jax.Array, jax.Array],
    valid: jax.Array,
    priority: jax.Array,
    time: tuple[jax.Array, jax.Array] | None = None,
    escapes: Escapes | None = None,
) -> Items:
    """Renders the items of a list slot with the template's entry line.

    Args:
      template: the prompt.
      slot: name of the list slot.
      text: tokens `[n, W]` and lengths `[n]` of the items' texts.
      valid: `[n]`, which of them exist; those are numbered by their place.
      priority: `[n]`, see `Items`.
      time: tokens and lengths of their time stamps, where the entry line shows them.
      escapes: for texts that the entry line shows as JSON.
    """
    if escapes is not None and slot in template.quoted:
        text = jax.vmap(escape, (None, 0, 0))(escapes, *text)
    count = text[0].shape[0]
    if count > len(template.numbers):
        raise ValueError(f"{count} items need as many ids, {len(template.numbers)} are prepared.")
    fields = {"text": text, "time": time, "id": _padded(template.numbers[:count])}
    pieces = []
    for part in dict(template.entries)[slot]:
        if isinstance(part, str):
            pieces.append(fields[part])
        elif part:
            tokens = jnp.broadcast_to(jnp.asarray(part, jnp.int32), (count, len(part)))
            pieces.append((tokens, jnp.full(count, len(part), jnp.int32)))
    tokens, length = jax.vmap(concatenate)(pieces)
    return Items(tokens, jnp.where(valid, length, 0), priority)


def fill(template: Template, slots: dict[str, Items], capacity: int) -> Packed:
    """Lays the prompt's parts and slots one after another in `[P]`; see `text.segments.pack`."""
    empty = dict(template.empty)
    pieces: list[Items] = []
    for part in template.parts:
        if isinstance(part, str):
            items = slots[part]
            pieces.append(items)
            if part in empty:
                nothing = jnp.all(items.length == 0)
                pieces.append(_fixed(empty[part], jnp.where(nothing, len(empty[part]), 0)))
        elif part:
            pieces.append(_fixed(part, len(part)))
    width = max(piece.tokens.shape[1] for piece in pieces)
    tokens = [jnp.pad(p.tokens, ((0, 0), (0, width - p.tokens.shape[1]))) for p in pieces]
    return pack(
        jnp.concatenate(tokens),
        jnp.concatenate([piece.length for piece in pieces]),
        jnp.concatenate([piece.priority for piece in pieces]),
        capacity,
    )


def single(tokens: jax.Array, length: jax.Array) -> Items:
    """Wraps one required text `[W]` as the content of a slot."""
    return Items(tokens[None], jnp.reshape(length, 1), jnp.zeros(1, jnp.int32))


def _fixed(tokens, length):
    return single(jnp.asarray(tokens, jnp.int32), jnp.int32(length))


def _padded(rows):
    """Pads tuples of token ids to tokens `[n, W]` and lengths `[n]`."""
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row
    return jnp.asarray(tokens), jnp.asarray([len(row) for row in rows], jnp.int32)
