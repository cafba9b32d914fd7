"""Constrained decoding: which tokens keep the manager's JSON valid, and short enough to finish.

`build_grammar` lifts the byte automaton of `canonical_json` to tokens, once per tokenizer. A stop
token ends the whole. The number of objects is not limited; the scanner counts those beyond its
capacity.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.arrays import on_host
from memr1_jax.errors import UserError
from memr1_jax.text.byte_table import ByteTable
from memr1_jax.text.canonical_json import SCHEMAS, TWINS, enter, enumerate_states

ILLEGAL = 255
LONGEST_TOKEN = 16  # bytes of a token that a grammar uses


@flax.struct.dataclass
class Grammar:
    """The grammar over tokens; a state is an int32, `start` the first.

    `next [S, V]` int16, -1 where illegal; `distance [S, V]` uint8, the fewest tokens that must
    follow that token, the stop token included, 255 where illegal; `needs [S, V]` uint8, the number
    of shown memories for which the transition holds; `twin [S]` int16, the state to be in if there
    are fewer; `refuses`: there is no twin, the transition is then illegal.
    """

    next: jax.Array
    distance: jax.Array
    needs: jax.Array
    twin: jax.Array
    start: jax.Array
    refuses: bool = flax.struct.field(pytree_node=False)


def _lift(following: np.ndarray, needs: np.ndarray, table: ByteTable):
    """Runs every token from every state: transitions and needs `[S, V]`."""
    spelled = np.flatnonzero(table.length)
    lifted = np.full((len(following), len(table.length)), -1, np.int16)
    needed = np.zeros(lifted.shape, np.uint8)
    for start in range(len(following)):
        token, state = spelled, np.full(len(spelled), start, np.int16)
        need = np.zeros(len(spelled), np.uint8)
        for place in range(table.bytes.shape[1]):
            byte = table.bytes[token, place]
            need = np.maximum(need, needs[state, byte])
            state = following[state, byte]
            done = (state >= 0) & (table.length[token] == place + 1)
            lifted[start, token[done]] = state[done]
            needed[start, token[done]] = need[done]
            alive = (state >= 0) & ~done
            token, state, need = token[alive], state[alive], need[alive]
            if not len(token):
                break
    return lifted, needed


def _distances(lifted: np.ndarray, needed: np.ndarray, twin: np.ndarray, refuses: bool, final: int):
    """Counts the fewest tokens after each transition `[S, V]`, however many memories are shown."""
    # Edges: the distinct (source, target, need); many tokens share one.
    rows = [
        np.unique(t[t >= 0] * 256 + n[t >= 0])
        for t, n in zip(lifted.astype(int), needed, strict=True)
    ]
    source = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    target, need = np.divmod(np.concatenate(rows), 256)
    if refuses:
        # A state may rely on transitions that need no more memories than reaching it did.
        reached = np.full(len(lifted), ILLEGAL)
        np.minimum.at(reached, target, need)
        reached[0] = 0
        usable = need <= reached[source]
        source, target, need = source[usable], target[usable], need[usable]

    nearest = np.full(len(lifted) + 1, ILLEGAL)  # the last place answers for -1, no state
    nearest[final] = 0
    while True:
        worst = np.maximum(nearest, np.append(nearest[twin], ILLEGAL))
        better = nearest.copy()
        np.minimum.at(better, source, 1 + np.where(need > 0, worst[target], nearest[target]))
        if np.array_equal(better, nearest):
            return np.where(needed > 0, worst[lifted], nearest[lifted]).astype(np.uint8)
        nearest = better


def build_grammar(
    schema: str,
    table: ByteTable,
    stop_tokens: list[int],
    max_entries: int,
    longest_token: int = LONGEST_TOKEN,
) -> Grammar:
    """Builds the `Grammar` of a schema, "compact" or "full", as NumPy arrays.

    `table` holds NumPy arrays; ids run from 0 to `max_entries` - 1. Tokens of more than
    `longest_token` bytes, mostly runs of spaces, are left out: a response of R tokens then has at
    most R times as many bytes, which a scanner can make room for.

    Raises:
        UserError: if the vocabulary cannot spell the schema, or there are too many entries.
    """
    if schema not in SCHEMAS:
        raise UserError(f"There is no schema {schema!r}. Use one of {', '.join(SCHEMAS)}.")
    if not 0 < max_entries < ILLEGAL:
        raise UserError(f"max_entries is {max_entries}, but must lie between 1 and {ILLEGAL - 1}.")
    index, following, needs = enumerate_states(schema, max_entries)
    short = np.where(table.length <= longest_token, table.length, 0)
    lifted, needed = _lift(
        following, needs, on_host(ByteTable, table.bytes, short, table.byte_token)
    )

    twin = np.arange(len(index) + 1, dtype=np.int16)
    if "any id" in {node.body for node in SCHEMAS[schema].values()}:
        for state, number in index.items():
            if state.node in TWINS:
                twin[number] = index.get(state._replace(node=TWINS[state.node]), -1)
        # A token that runs through an id must end where known and new entries are told apart.
        told = np.array([state.node in TWINS for state in index] + [False]) & (twin >= 0)
        lifted = np.where((needed > 0) & ~told[lifted], np.int16(-1), lifted)

    final = len(index)
    lifted = np.concatenate([lifted, np.full((1, lifted.shape[1]), -1, np.int16)])
    needed = np.concatenate([needed, np.zeros((1, needed.shape[1]), np.uint8)])
    for number in (index[enter(SCHEMAS[schema], "end")], final):
        lifted[number, stop_tokens] = final
    refuses = schema == "compact"
    distance = _distances(lifted, needed, twin, refuses, final)
    lifted = np.where(distance < ILLEGAL, lifted, np.int16(-1))
    if (distance[0] == ILLEGAL).all():
        raise UserError(
            f"The tokenizer cannot spell the {schema} schema, or has no stop token. Turn "
            "constrained decoding off, or use a byte-level tokenizer."
        )
    return on_host(Grammar, lifted, distance, needed, twin, np.int32(0), refuses=refuses)


def fewest_tokens(grammar: Grammar) -> jax.Array:
    """Returns the length of the shortest complete response, stop token included; int32 scalar."""
    return 1 + jnp.min(grammar.distance[grammar.start]).astype(jnp.int32)


def allowed(
    grammar: Grammar, state: jax.Array, remaining: jax.Array, shown: jax.Array
) -> jax.Array:
    """Tells the tokens after which the response can still be completed; `[..., V]` bool.

    `state [...]`; `remaining [...]`, the number of tokens that may be sampled, this one included;
    `shown [...]`, the number of memories in the prompt. If sampling starts with `fewest_tokens`
    remaining or more, and follows this, there is always a token left; after the end it is a stop
    token.
    """
    limit = jnp.clip(remaining, 0, ILLEGAL).astype(jnp.uint8)[..., None]
    legal = jnp.asarray(grammar.distance)[state] < limit
    if grammar.refuses:
        most = jnp.clip(shown, 0, ILLEGAL).astype(jnp.uint8)[..., None]
        legal = legal & (jnp.asarray(grammar.needs)[state] <= most)
    return legal


def advance(grammar: Grammar, state: jax.Array, token: jax.Array, shown: jax.Array) -> jax.Array:
    """Takes a token `[...]` from a state `[...]`; an illegal one leaves the state as it is."""
    following = jnp.asarray(grammar.next)[state, token].astype(jnp.int32)
    other = jnp.asarray(grammar.twin)[following].astype(jnp.int32)
    lacking = jnp.asarray(grammar.needs)[state, token] > shown
    return jnp.where(following < 0, state, jnp.where(lacking, other, following))


def states_along(grammar: Grammar, tokens: jax.Array, shown: jax.Array) -> jax.Array:
    """Returns the states before each token of responses `[..., R]`; `shown [...]`."""
    first = jnp.broadcast_to(grammar.start, tokens.shape[:-1]).astype(jnp.int32)

    def take(state, token):
        return advance(grammar, state, token, shown), state

    _, states = jax.lax.scan(take, first, jnp.moveaxis(tokens, -1, 0))
    return jnp.moveaxis(states, 0, -1)
