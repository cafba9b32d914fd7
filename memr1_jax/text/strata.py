"""Strata of responses by their first operation, so that each kind can be sampled on purpose.

In the compact schema the first line names a response's operation. Tokens are restricted until it is
named; all others are as free as the grammar leaves them.

Axis letters: V vocabulary, K states within a line's literals.
"""

import os

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.arrays import on_host
from memr1_jax.text.byte_table import ByteTable
from memr1_jax.text.canonical_json import SCHEMAS, State, enumerate_states
from memr1_jax.text.events import Event
from memr1_jax.text.grammar import Grammar, advance, allowed

_LINE = "line"  # the node of the compact schema in which an operation is named


@flax.struct.dataclass
class Strata:
    """Tells which operations a first line may still name: a table over states and tokens.

    `row [S + 1]` int32: the place of a grammar's state in `events`, K where the operation is named.
    `events [K + 1, V]` uint8: a bit for each `Event` that the line may name after that token.
    `prefix`: tokens after which every line has named its operation.
    """

    row: jax.Array
    events: jax.Array
    prefix: int = flax.struct.field(pytree_node=False)


def build_strata(table: ByteTable, max_entries: int) -> Strata:
    """Builds the table of the compact schema as NumPy arrays, for a grammar of the same entries."""
    index, _, _ = enumerate_states("compact", max_entries)
    options = SCHEMAS["compact"][_LINE].options
    event_of = {text: _event(text) for text in options}
    begun = [state for state in index if state.node == _LINE]
    row = np.full(len(index) + 1, len(begun), np.int32)
    events = np.zeros((len(begun) + 1, len(table.length)), np.uint8)
    events[-1] = (1 << len(Event)) - 1
    beginning: dict[str, list[tuple[int, str]]] = {}  # tokens by their first character
    for token in np.flatnonzero(table.length).tolist():
        text = bytes(table.bytes[token, : table.length[token]]).decode("latin-1")
        beginning.setdefault(text[0], []).append((token, text))
    for place, state in enumerate(begun):
        row[index[state]] = place
        read = len(state.literal)
        for first in {option[read] for option in options if option.startswith(state.literal)}:
            for token, text in beginning.get(first, ()):
                events[place, token] = _events(event_of, state, text)
    return on_host(Strata, row, events, prefix=len(os.path.commonprefix([*options])) + 1)


def _event(option: str) -> Event:
    return next(event for event in Event if f'"{event.name}"' in option)


def _events(event_of: dict[str, Event], state: State, text: str) -> int:
    """Returns the bits of the events whose literal goes with what was read and `text`."""
    read = state.literal + text
    return sum(
        1 << event
        for option, event in event_of.items()
        if option.startswith(read) or read.startswith(option)
    )


def create_state(grammar: Grammar, rows: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns the state before the first token: the grammar's, and that nothing is named yet."""
    return jnp.broadcast_to(grammar.start, rows), jnp.ones(rows, bool)


def allowed_within(
    grammar: Grammar,
    strata: Strata,
    state: tuple[jax.Array, jax.Array],
    remaining: jax.Array,
    shown: jax.Array,
    event: jax.Array,
) -> jax.Array:
    """Tells the tokens `[..., V]` that the grammar allows and that lead to an operation `event`."""
    at, unnamed = state
    bits = jnp.asarray(strata.events)[jnp.asarray(strata.row)[at]]
    leads = (bits >> event[..., None].astype(jnp.uint8)) & 1 == 1
    return allowed(grammar, at, remaining, shown) & (leads | ~unnamed[..., None])


def advance_within(
    grammar: Grammar,
    strata: Strata,
    state: tuple[jax.Array, jax.Array],
    token: jax.Array,
    shown: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Takes a token from a state; an operation that was named stays so on later lines."""
    at, unnamed = state
    following = advance(grammar, at, token, shown)
    within = jnp.asarray(strata.row)[following] < jnp.asarray(strata.events).shape[0] - 1
    return following, unnamed & within
