"""The loops that decode responses: one token of every row at a time, or several with drafts.

Axis letters: R response length, T tokens of a pass, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.models.bits import on_one_cpu
from memr1_jax.models.decoder import (
    Block,
    Context,
    Decoder,
    by_layer,
    empty_cache,
    extend_cache,
)
from memr1_jax.models.drafts import copied, history_of, last_tokens, write_after

_MOST_UNROLLED = 32  # layers; more take long to compile
_FEWEST_COPIED = 2**18  # bytes of weights and keys for each row and token; fewer hardly take time


class Constraint(NamedTuple):
    """A restriction on the tokens of each row, such as a grammar.

    `state` is a pytree of arrays `[*rows, ...]`; `allowed(state, remaining)` gives a mask
    `[*rows, V]` of tokens that may come next with `remaining` tokens left, this one included;
    `advance(state, tokens)` the next state.
    """

    state: Any
    allowed: Callable
    advance: Callable


@struct.dataclass
class Samples:
    """Sampled responses.

    `tokens` `[*rows, R]`; `length` `[*rows]`, a final stop token included; `logprobs` `[*rows, R]`
    of the distribution that was sampled (temperature and constraint applied; at temperature 0
    that of temperature 1), 0 beyond the length; `stopped` `[*rows]`, False where the
    response was cut off; `passes` `[*rows]`, the passes that a row took, None without drafts.
    """

    tokens: jax.Array
    length: jax.Array
    logprobs: jax.Array
    stopped: jax.Array
    passes: jax.Array | None = None

    @property
    def block(self) -> Block:
        """The responses as a block of the chain."""
        return Block(self.tokens, self.length)


class Rest(NamedTuple):
    """Holds what decoding the rest of the responses reads and does not change."""

    decoder: Decoder
    params: dict
    contexts: tuple[Context, ...]
    constraint: Constraint | None
    draw: Callable
    is_stop: Callable
    max_tokens: int

    def decode(self, method: Callable, *arguments: Any) -> Any:
        """Calls a method of the decoder."""
        return self.decoder.apply({"params": self.params}, *arguments, method=method)


def decode_singly(
    rest: Rest, tokens: jax.Array, logprobs: jax.Array, state: Any, done: jax.Array
) -> Samples:
    """Decodes one token of every row at a time.

    Args:
      rest: see `Rest`.
      tokens: `[*rows]`, the first of each response.
      logprobs: `[*rows]`, theirs.
      state: of the constraint after them.
      done: `[*rows]`, the rows that are to stay empty.
    """
    rows, constraint = tokens.shape, rest.constraint
    cache = empty_cache(rest.decoder.config, rows, rest.max_tokens, rest.decoder.dtype)
    if _copies_much(rest, tokens.size):
        params, contexts, cache = by_layer(rest.params, rest.contexts, cache)
        rest = rest._replace(params=params, contexts=contexts)

    def record(outputs, tokens, logprobs, done, step):
        out_tokens, out_logprobs, length = outputs
        return (
            out_tokens.at[..., step].set(jnp.where(done, 0, tokens)),
            out_logprobs.at[..., step].set(jnp.where(done, 0.0, logprobs)),
            length + ~done,
        )

    def unfinished(carry):
        step, _, done, *_ = carry
        return (step < rest.max_tokens - 1) & ~done.all()

    def advance(carry):
        step, tokens, done, state, cache, outputs = carry
        hidden, cache = rest.decode(Decoder.decode, tokens, rest.contexts, cache, step)
        step = step + 1
        allowed = None
        if constraint is not None:
            allowed = constraint.allowed(state, rest.max_tokens - step)
        tokens, logprobs = rest.draw(hidden, allowed, jnp.broadcast_to(step, rows))
        if constraint is not None:
            state = constraint.advance(state, tokens)
        outputs = record(outputs, tokens, logprobs, done, step)
        return step, tokens, done | rest.is_stop(tokens), state, cache, outputs

    outputs = (
        jnp.zeros((*rows, rest.max_tokens), jnp.int32),
        jnp.zeros((*rows, rest.max_tokens), jnp.float32),
        jnp.zeros(rows, jnp.int32),
    )
    step = jnp.int32(0)
    outputs = record(outputs, tokens, logprobs, done, step)
    carry = (step, tokens, done | rest.is_stop(tokens), state, cache, outputs)
    carry = jax.lax.while_loop(unfinished, advance, carry)
    done, (tokens, logprobs, length) = carry[2], carry[-1]
    return Samples(tokens, length, logprobs, done)


def _copies_much(rest: Rest, rows: int) -> bool:
    """Tells whether a scan over layers would spend long on copies; see `by_layer`."""
    arrays = jax.tree.leaves((rest.params["layers"], rest.contexts))
    copied = sum(array.size * array.dtype.itemsize for array in arrays)
    few = rest.decoder.config.num_layers <= _MOST_UNROLLED
    return on_one_cpu() and few and copied >= rows * _FEWEST_COPIED


def decode_drafted(
    rest: Rest,
    tokens: jax.Array,
    logprobs: jax.Array,
    state: Any,
    done: jax.Array,
    *,
    blocks: tuple[Block, ...],
    drafts: int,
) -> Samples:
    """Decodes up to 1 + `drafts` tokens of a row at a time; takes what `decode_singly` takes.

    `blocks` is the chain to copy from. Each row advances by its own count. The last token of a row
    is not yet in the cache, and keys of rejected tokens lie behind its end until they are written
    over.
    """
    rows, constraint, most = tokens.shape, rest.constraint, rest.max_tokens
    places = jnp.arange(drafts + 1)

    def propose(history, known, state, count):
        """Drafts tokens; returns them with masks and states, each place first on its axis."""

        def one(carry, place):
            last, state = carry
            token, allowed = copied(history, known, last), None
            if constraint is not None:
                allowed = constraint.allowed(state, jnp.maximum(most - count - place, 1))
                forced = allowed.sum(-1) == 1
                token = jnp.where(forced, jnp.argmax(allowed, axis=-1), token)
            following = state if constraint is None else constraint.advance(state, token)
            last = jnp.concatenate([last[..., 1:], token[..., None]], axis=-1)
            return (last, following), (token, allowed, state)

        return jax.lax.scan(one, (last_tokens(history, known), state), places)[1]

    def unfinished(carry):
        count, stopped, *_ = carry
        return (~stopped & (count < most)).any()

    def advance(carry):
        count, stopped, history, logprobs, state, cache, passes = carry
        known = start + count
        drafted, allowed, states = propose(history, known, state, count)
        drafted = jnp.moveaxis(drafted[:-1], 0, -1)
        last = jnp.take_along_axis(history, known[..., None] - 1, axis=-1)
        read = jnp.concatenate([last, drafted], axis=-1)
        written = jnp.maximum(count - 1, 0)
        hidden, new = rest.decode(
            Decoder.extend,
            Block(read, jnp.full(rows, drafts + 1)),
            (*rest.contexts, Context(*cache, written)),
        )
        cache = extend_cache(cache, new, written)
        if constraint is not None:
            allowed = jnp.moveaxis(allowed, 0, -2)
        tokens, likely = rest.draw(hidden, allowed, count[..., None] + places)
        right = jnp.cumprod(tokens[..., :-1] == drafted, axis=-1)
        stop = rest.is_stop(tokens)
        ends = jnp.where(stop.any(-1), jnp.argmax(stop, axis=-1) + 1, drafts + 1)
        taken = jnp.minimum(jnp.minimum(1 + right.sum(-1), ends), most - count)
        taken = jnp.where(stopped, 0, taken)
        if constraint is not None:
            final = jnp.maximum(taken - 1, 0)
            before = jax.tree.map(lambda x: _at_place(x, final), states)
            state = constraint.advance(before, take_last(tokens, final))
        history = write_after(history, known, tokens, taken)
        logprobs = write_after(logprobs, count, likely, taken)
        stopped |= (stop & (places < taken[..., None])).any(-1)
        return count + taken, stopped, history, logprobs, state, cache, passes + (taken > 0)

    history, start = (
        jnp.broadcast_to(jnp.expand_dims(x, len(rows) - 1), (*rows, *x.shape[len(rows) - 1 :]))
        for x in history_of(blocks, most)
    )
    count = (~done).astype(jnp.int32)
    history = write_after(history, start, tokens[..., None], count)
    logprobs = write_after(jnp.zeros((*rows, most)), count - 1, logprobs[..., None], count)
    cache = empty_cache(rest.decoder.config, rows, most + drafts, rest.decoder.dtype)
    carry = (count, done | rest.is_stop(tokens), history, logprobs, state, cache, count)
    carry = jax.lax.while_loop(unfinished, advance, carry)
    count, stopped, history, logprobs, *_, passes = carry
    response = jnp.arange(most)
    tokens = jnp.take_along_axis(history, start[..., None] + response, axis=-1)
    tokens = jnp.where(response < count[..., None], tokens, 0)
    return Samples(tokens, count, logprobs, stopped, passes)


def _at_place(stacked, place):
    """Picks entries `[*rows, ...]` of `[T, *rows, ...]` by `place` `[*rows]`."""
    index = place.reshape(1, *place.shape, *[1] * (stacked.ndim - 1 - place.ndim))
    return jnp.take_along_axis(stacked, index, axis=0)[0]


def take_last(array, index):
    """Picks entries `[*rows]` of `[*rows, T]` by `index` `[*rows]`."""
    return jnp.take_along_axis(array, index[..., None], axis=-1)[..., 0]
