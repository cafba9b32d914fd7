"""The memory bank: a pytree of fixed-shape arrays and the four operations on it.

A bank never changes shape, so thousands of edits can live inside one compiled program, under `scan`
and `vmap`. An operation is not a branch: it becomes one row to write and one row to bury, and an
operation that does nothing writes to row M, which the scatter drops.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from memr1_jax.arrays import on_host
from memr1_jax.text.byte_table import cut_to_width
from memr1_jax.text.events import Event


@flax.struct.dataclass
class MemoryBank:
    """The memories of one speaker, or of B of them; only rows that are `alive` mean anything.

    Time stamps are kept as indices into a list that the caller owns.
    """

    tokens: Int[Array, "*B M W"]  # right padded
    length: Int[Array, "*B M"]
    key: Float[Array, "*B M E"]  # the embedding of the text
    created: Int[Array, "*B M"]  # index of the time stamp of the ADD
    updated: Int[Array, "*B M"]  # index of the time stamp of the last write
    source: Int[Array, "*B M"]  # dialogue turn of the last write
    alive: Bool[Array, "*B M"]
    refused: Int[Array, "*B"]  # ADDs into a full bank
    unknown: Int[Array, "*B"]  # UPDATEs and DELETEs of a slot that names no memory
    overflowed: Int[Array, "*B"]  # written texts that were longer than W and were cut


@flax.struct.dataclass
class Operations:
    """Holds a manager's requests to a bank, in order; padding is `Event.NONE`."""

    event: Int[Array, "*B O"]  # see `Event`
    slot: Int[Array, "*B O"]  # the row of the memory that UPDATE and DELETE mean; ADD ignores it
    tokens: Int[Array, "*B O W"]
    length: Int[Array, "*B O"]  # a length above W says that the text was cut


def empty_bank(capacity: int, width: int, features: int) -> MemoryBank:
    """Returns a bank of `capacity` dead slots for texts of `width` tokens, keys of `features`."""
    return MemoryBank(
        tokens=jnp.zeros((capacity, width), jnp.int32),
        length=jnp.zeros(capacity, jnp.int32),
        key=jnp.zeros((capacity, features), jnp.float32),
        created=jnp.zeros(capacity, jnp.int32),
        updated=jnp.zeros(capacity, jnp.int32),
        source=jnp.zeros(capacity, jnp.int32),
        alive=jnp.zeros(capacity, bool),
        refused=jnp.int32(0),
        unknown=jnp.int32(0),
        overflowed=jnp.int32(0),
    )


def add(bank: MemoryBank, tokens, length, key, time, source) -> MemoryBank:
    """Writes a memory into the lowest dead slot; a full bank refuses and counts.

    Shapes: tokens [W], length [], key [E], time [], source []. An empty text does nothing.
    """
    return _apply(bank, bank.alive, Event.ADD, 0, tokens, length, key, time, source)[0]


def update(bank: MemoryBank, slot, tokens, length, key, time, source) -> MemoryBank:
    """Replaces the text and key of a live slot and keeps its time of creation.

    Shapes: slot [], tokens [W], length [], key [E], time [], source []. An empty text does nothing;
    a slot that is dead or out of range is counted as unknown.
    """
    return _apply(bank, bank.alive, Event.UPDATE, slot, tokens, length, key, time, source)[0]


def delete(bank: MemoryBank, slot) -> MemoryBank:
    """Clears `alive` of a slot []; one that is dead or out of range is counted as unknown."""
    nothing = jnp.zeros_like(bank.tokens[0]), 0, jnp.zeros_like(bank.key[0]), 0, 0
    return _apply(bank, bank.alive, Event.DELETE, slot, *nothing)[0]


def apply_operations(
    bank: MemoryBank,
    operations: Operations,
    keys: Float[Array, "O E"],
    time: Int[Array, ""] | int,
    source: Int[Array, ""] | int,
) -> MemoryBank:
    """Applies operations in order, all with the same time stamp and dialogue turn.

    Args:
        bank: the bank before.
        operations: events, slots and texts. A slot names the memory that it held before the first
            operation: once that is deleted it names nothing, whatever an ADD puts there since.
        keys: embeddings of the texts.
        time: index of the time stamp.
        source: dialogue turn.

    Returns:
        The bank after. Map with `vmap` over batch, group and speaker.
    """

    def step(carry, item):
        operation, key = item
        text = operation.tokens, operation.length
        return _apply(*carry, operation.event, operation.slot, *text, key, time, source), None

    return jax.lax.scan(step, (bank, bank.alive), (operations, keys))[0][0]


def _apply(
    bank, named, event, slot, tokens, length, key, time, source
) -> tuple[MemoryBank, Bool[Array, " M"]]:
    """Applies one operation; `named [M]` marks slots that still hold what an id was shown for."""
    capacity, width = bank.tokens.shape
    full = jnp.all(bank.alive)
    # A negative index would wrap around, so the range is checked before the gather.
    known = (slot >= 0) & (slot < capacity) & named[jnp.clip(slot, 0, capacity - 1)]
    has_text = length > 0
    wants_add = (event == Event.ADD) & has_text
    wants_update = (event == Event.UPDATE) & has_text
    wants_delete = event == Event.DELETE

    adds = wants_add & ~full
    updates = wants_update & known
    lowest_dead = jnp.argmin(bank.alive)
    written = jnp.where(adds, lowest_dead, jnp.where(updates, slot, capacity))
    created = jnp.where(adds, lowest_dead, capacity)
    deleted = jnp.where(wants_delete & known, slot, capacity)

    def put(array, row, value):
        return array.at[row].set(value, mode="drop")

    edited = MemoryBank(
        tokens=put(bank.tokens, written, tokens),
        length=put(bank.length, written, jnp.minimum(length, width)),
        key=put(bank.key, written, key),
        created=put(bank.created, created, time),
        updated=put(bank.updated, written, time),
        source=put(bank.source, written, source),
        alive=put(put(bank.alive, written, True), deleted, False),
        refused=bank.refused + (wants_add & full),
        unknown=bank.unknown + ((wants_update | wants_delete) & ~known),
        overflowed=bank.overflowed + ((adds | updates) & (length > width)),
    )
    return edited, put(named, deleted, False)


def bank_size(bank: MemoryBank) -> Int[Array, "*B"]:
    """Counts the live memories."""
    return jnp.sum(bank.alive, axis=-1, dtype=jnp.int32)


def bank_from_facts(
    facts: Sequence[Sequence[int]],
    keys: Float[np.ndarray, "n E"],
    times: Sequence[int],
    sources: Sequence[int],
    *,
    capacity: int,
    width: int,
    begins: np.ndarray | None = None,
) -> MemoryBank:
    """Builds on the host, with NumPy, the bank that adding the facts one by one would give.

    Args:
        facts: n token lists; one longer than `width` is cut and counted, an empty one skipped.
        keys: embeddings of the facts.
        times: n indices of time stamps.
        sources: n dialogue turns.
        capacity: slots of the bank; facts beyond it are refused and counted.
        width: tokens a slot holds.
        begins: which tokens begin a character, see `cut_to_width`.
    """
    keys = np.asarray(keys, np.float32)
    held = [cut_to_width(fact, width, begins) for fact in facts]
    filled = [i for i, fact in enumerate(held) if len(fact)]
    kept = filled[:capacity]
    n = len(kept)
    tokens = np.zeros((capacity, width), np.int32)
    length = np.zeros(capacity, np.int32)
    for row, i in enumerate(kept):
        length[row] = len(held[i])
        tokens[row, : length[row]] = held[i]
    key = np.zeros((capacity, keys.shape[-1]), np.float32)
    key[:n] = keys[kept]
    time, source = np.zeros((2, capacity), np.int32)
    time[:n] = [times[i] for i in kept]
    source[:n] = [sources[i] for i in kept]
    return on_host(
        MemoryBank,
        tokens=tokens,
        length=length,
        key=key,
        created=time,
        updated=time.copy(),
        source=source,
        alive=np.arange(capacity) < n,
        refused=np.int32(len(filled) - n),
        unknown=np.int32(0),
        overflowed=np.int32(sum(len(facts[i]) > width for i in kept)),
    )
