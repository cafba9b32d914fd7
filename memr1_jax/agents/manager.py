"""The Memory Manager: compares new facts with what the bank holds and edits the bank.

Axis letters: B prompts, G samples a prompt, P prompt length, R response length, F facts of a turn,
W tokens of a memory, O operations in a response, M slots of a bank.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.agents.templates import Template, fill, list_items
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import Facts
from memr1_jax.memory.bank import MemoryBank, Operations, apply_operations
from memr1_jax.memory.embedder import embed
from memr1_jax.memory.retrieval import merge_unique, retrieve
from memr1_jax.models.sampler import Constraint
from memr1_jax.text.events import Event
from memr1_jax.text.grammar import LONGEST_TOKEN, Grammar, advance, allowed
from memr1_jax.text.json_scanner import scan_operations

BYTES_PER_TOKEN = 8  # room for the bytes of a free response; the rest is not read, but counted


@dataclasses.dataclass(frozen=True)
class MemoryManager:
    """Sizes and prompt of the Memory Manager; static under `jit`."""

    template: Template
    prompt_length: int  # P, the instruction not counted
    response_length: int  # R
    stop_tokens: tuple[int, ...]
    operations: int  # O, read of one response
    neighbours: int = 5  # similar memories retrieved for each fact
    shown: int = 20  # memories shown at most
    salvage: bool = False  # whether the intact part of a broken response counts
    draft_tokens: int = 0  # drafted in a pass of decoding


@struct.dataclass
class ManagerPrompt:
    """A prompt `[P]`, and the slots that its memory ids stand for; the first `shown` are real."""

    tokens: jax.Array
    length: jax.Array
    slots: jax.Array
    shown: jax.Array
    dropped: jax.Array
    overflow: jax.Array


@struct.dataclass
class Report:
    """Counts of one response, float32 scalars: what was written and what could be applied."""

    add: jax.Array
    update: jax.Array
    delete: jax.Array
    none: jax.Array
    invalid: jax.Array  # 1 where the output was not readable: no operation
    salvaged: jax.Array  # 1 where entries were kept though others were broken
    skipped: jax.Array  # entries without a usable event, id or text
    unknown: jax.Array  # ids that were not shown
    gone: jax.Array  # ids that the same response had deleted before
    refused: jax.Array  # ADDs into a full bank
    dropped: jax.Array  # operations beyond O
    cut: jax.Array  # texts longer than W
    unread: jax.Array  # 1 where the response had more bytes than are read


@functools.partial(jax.jit, static_argnums=0)
def manager_prompt(
    manager: MemoryManager, tools: Tools, bank: MemoryBank, facts: Facts
) -> ManagerPrompt:
    """Writes the prompt for the facts of one turn: similar memories, numbered from 0, and facts.

    The neighbours of all facts are merged, best first. When space is short the least similar go,
    so that the ids that remain are still 0, 1, ...
    """
    keys = jax.vmap(embed, (None, 0, 0))(tools.embedder, facts.tokens, facts.length)
    present = facts.length > 0
    found = jax.vmap(retrieve, (None, 0, None))(bank, keys, manager.neighbours)
    found = found.replace(valid=found.valid & present[:, None])
    capacity = bank.alive.shape[-1]
    found = merge_unique(found, capacity, manager.shown)
    slot = jnp.minimum(found.slot, capacity - 1)
    rank = jnp.arange(manager.shown) + 1
    memories = list_items(
        manager.template,
        "memories",
        (bank.tokens[slot], bank.length[slot]),
        found.valid,
        rank,
        escapes=tools.escapes,
    )
    required = jnp.zeros(len(facts.length), jnp.int32)
    new = list_items(
        manager.template,
        "facts",
        (facts.tokens, facts.length),
        present,
        required,
        escapes=tools.escapes,
    )
    packed = fill(manager.template, {"memories": memories, "facts": new}, manager.prompt_length)
    shown = jnp.sum(found.valid) - packed.dropped
    return ManagerPrompt(packed.tokens, packed.length, slot, shown, packed.dropped, packed.overflow)


def grammar_constraint(grammar: Grammar, shown: jax.Array, rows: tuple[int, ...]) -> Constraint:
    """Keeps every sample readable; `shown` `[*rows]` bounds the ids that a row may name."""
    return Constraint(
        state=jnp.broadcast_to(grammar.start, rows),
        allowed=lambda state, remaining: allowed(grammar, state, remaining, shown),
        advance=lambda state, tokens: advance(grammar, state, tokens, shown),
    )


def bytes_read(tools: Tools, tokens: int) -> int:
    """Returns how many bytes are read of a response with room for `tokens` tokens."""
    # A constrained response is read whole, whatever its tokens.
    return tokens * (BYTES_PER_TOKEN if tools.grammar is None else LONGEST_TOKEN)


@functools.partial(jax.jit, static_argnums=0)
def apply_response(
    manager: MemoryManager,
    tools: Tools,
    bank: MemoryBank,
    prompt: ManagerPrompt,
    facts: Facts,
    tokens: jax.Array,
    length: jax.Array,
) -> tuple[MemoryBank, Report]:
    """Reads one response `[R]` and applies its operations to a copy of the bank.

    Ids are mapped back to slots; one that was not shown points nowhere and is counted. Output that
    cannot be read does nothing and is counted.
    """
    capacity, width = bank.tokens.shape
    scanned = scan_operations(
        tools.scanner,
        tools.byte_table,
        tokens,
        length,
        max_operations=manager.operations,
        max_text=width,
        capacity=bytes_read(tools, tokens.shape[-1]),
        salvage=manager.salvage,
    )
    known = (scanned.id >= 0) & (scanned.id < prompt.shown)
    slot = prompt.slots[jnp.clip(scanned.id, 0, manager.shown - 1)]
    text = scanned.tokens.at[:, 0].set(tools.after_space(scanned.tokens[:, 0]))
    operations = Operations(
        event=scanned.event,
        slot=jnp.where(known, slot, capacity),
        tokens=text,
        length=scanned.length,
    )
    keys = jax.vmap(embed, (None, 0, 0))(tools.embedder, text, jnp.minimum(scanned.length, width))
    after = apply_operations(bank, operations, keys, facts.time, facts.source)

    written = jnp.arange(manager.operations) < scanned.count

    def count(event):
        return jnp.sum(written & (scanned.event == event)).astype(jnp.float32)

    named = jnp.asarray([event.names_memory for event in Event])[scanned.event]
    unknown = jnp.sum(written & named & ~known).astype(jnp.float32)

    return after, Report(
        **{event.key: count(event) for event in Event if event != Event.NONE},
        none=scanned.none.astype(jnp.float32),
        invalid=(~scanned.valid).astype(jnp.float32),
        salvaged=scanned.salvaged.astype(jnp.float32),
        skipped=scanned.skipped.astype(jnp.float32),
        unknown=unknown,
        gone=(after.unknown - bank.unknown) - unknown,
        refused=(after.refused - bank.refused).astype(jnp.float32),
        dropped=scanned.dropped.astype(jnp.float32),
        cut=scanned.cut.astype(jnp.float32),
        unread=scanned.overflow.astype(jnp.float32),
    )
