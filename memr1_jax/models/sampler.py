"""Sampling: prefill and decoding in one compiled program, tokens in and tokens out.

Axis letters: B prompts, G samples a prompt, R response length, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.models.decoder import Block, Context, Decoder, empty_cache, extend_cache
from memr1_jax.models.drafts import copied, history_of, last_tokens, write_after
from memr1_jax.models.int8 import to_int8
from memr1_jax.models.precision import cast_weights
from memr1_jax.parallel.activations import gather_weights, spread

_BLOCK = 256  # entries a block of the two-level inverse CDF


@struct.dataclass
class Sampling:
    """Traced sampling parameters: a change does not recompile; `temperature` 0 means greedy."""

    temperature: jax.Array

    @classmethod
    def create(cls, temperature: float = 1.0) -> "Sampling":
        """Makes arrays of scalars."""
        return cls(jnp.float32(temperature))


def greedy_sampling() -> tuple[jax.Array, Sampling]:
    """Returns a key, from which nothing is drawn, and parameters for greedy decoding."""
    return jax.random.key(0), Sampling.create(temperature=0.0)


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


def rollout_weights(params: dict, dtype: Any, int8: bool = False) -> dict:
    """Casts weights for `generate`, with `int8` those of `to_int8`; gathers them over fsdp.

    Done once, outside of the decode loop, which would otherwise do it for every token.
    """
    return gather_weights(cast_weights(to_int8(params) if int8 else params, dtype), dtype)


def generate(
    decoder: Decoder,
    params: dict,
    blocks: tuple[Block, ...],
    key: jax.Array,
    sampling: Sampling,
    *,
    group: int,
    max_tokens: int,
    stop_tokens: tuple[int, ...],
    row_ids: jax.Array | None = None,
    active: jax.Array | None = None,
    constraint: Constraint | None = None,
    past: tuple[Context, ...] = (),
    drafts: int = 0,
) -> Samples:
    """Samples `group` responses to every prompt: rows are the last block's leading axes and G.

    Prompts are computed once, their keys are shared by the group. Ends early when every row has
    met a stop token. Row `i` draws from `fold_in(fold_in(key, row_ids[i]), step)`, so that a sample
    does not depend on the rest of the batch; `row_ids` `[*rows]` defaults to 0, 1, ... Rows
    outside `active` `[*rows]` give empty responses and delay nothing.

    With `drafts` a pass computes so many more tokens, copied from prompt and response or forced by
    the constraint, and keeps those that sampling one at a time would have drawn. The draw at a
    step is the same, so a draft is accepted with its probability under the policy, which is exact
    rejection sampling, and the samples are those without drafts, up to rounding.
    """
    hidden, contexts = decoder.apply({"params": params}, blocks, past, method=Decoder.prefill)
    rows = (*hidden.shape[:-1], group)
    hidden = jnp.broadcast_to(hidden[..., None, :], (*rows, hidden.shape[-1]))
    if row_ids is None:
        row_ids = jnp.arange(hidden[..., 0].size).reshape(rows)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, row_ids.reshape(-1))
    stops = jnp.asarray(stop_tokens, jnp.int32)
    state = None if constraint is None else constraint.state

    def draw(hidden, allowed, steps):
        logits = spread(decoder.apply({"params": params}, hidden, method=Decoder.logits))
        uniform = _uniform(keys, steps.reshape(len(keys), -1)).reshape(steps.shape)
        return sample_tokens(logits, uniform, sampling, allowed)

    def is_stop(tokens):
        return (tokens[..., None] == stops).any(axis=-1)

    allowed = None if constraint is None else constraint.allowed(state, max_tokens)
    tokens, logprobs = draw(hidden, allowed, jnp.zeros(rows, jnp.int32))
    if constraint is not None:
        state = constraint.advance(state, tokens)
    done = jnp.zeros(rows, bool) if active is None else ~active
    rest = _Rest(decoder, params, contexts, constraint, draw, is_stop, max_tokens)
    if drafts:
        return _decode_drafted(rest, blocks, drafts, tokens, logprobs, state, done)
    return _decode_singly(rest, tokens, logprobs, state, done)


class _Rest(NamedTuple):
    """Holds what decoding the rest of the responses reads and does not change."""

    decoder: Decoder
    params: dict
    contexts: tuple[Context, ...]
    constraint: Constraint | None
    draw: Callable
    is_stop: Callable
    max_tokens: int

    def decode(self, method, *arguments):
        return self.decoder.apply({"params": self.params}, *arguments, method=method)


def _decode_singly(rest, tokens, logprobs, state, done):
    """Decodes one token of every row at a time, after the first tokens `[*rows]`."""
    rows, constraint = tokens.shape, rest.constraint

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
    cache = empty_cache(rest.decoder.config, rows, rest.max_tokens, rest.decoder.dtype)
    carry = (step, tokens, done | rest.is_stop(tokens), state, cache, outputs)
    carry = jax.lax.while_loop(unfinished, advance, carry)
    done, (tokens, logprobs, length) = carry[2], carry[-1]
    return Samples(tokens, length, logprobs, done)


def _decode_drafted(rest, blocks, drafts, tokens, logprobs, state, done):
    """Decodes up to 1 + `drafts` tokens of a row at a time, after the first tokens `[*rows]`.

    Each row advances by its own count. The last token of a row is not yet in the cache; keys of
    rejected tokens lie behind its end until they are written over.
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
            state = constraint.advance(before, _take_last(tokens, final))
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


def _uniform(keys, steps):
    """Draws from [0, 1) for rows `[N]` at steps `[N, T]`; each depends on its row and step only."""
    draw = jax.vmap(lambda key, step: jax.random.uniform(jax.random.fold_in(key, step)), (None, 0))
    return jax.vmap(draw)(keys, steps)


def _at_place(stacked, place):
    """Picks entries `[*rows, ...]` of `[T, *rows, ...]` by `place` `[*rows]`."""
    index = place.reshape(1, *place.shape, *[1] * (stacked.ndim - 1 - place.ndim))
    return jnp.take_along_axis(stacked, index, axis=0)[0]


def _take_last(array, index):
    """Picks entries `[*rows]` of `[*rows, T]` by `index` `[*rows]`."""
    return jnp.take_along_axis(array, index[..., None], axis=-1)[..., 0]


def sample_tokens(
    logits: jax.Array,
    uniform: jax.Array,
    sampling: Sampling,
    allowed: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Samples one token a row `[*rows]` by inverse CDF, and its log-probability.

    Exact up to the 24 bits of `uniform` `[*rows]`. The CDF has two levels, sums of blocks and then
    one block, which is many times cheaper than Gumbel noise over the whole vocabulary.

    Args:
      logits: float32 `[*rows, V]`.
      uniform: one draw from [0, 1) a row.
      sampling: traced parameters.
      allowed: optional mask `[*rows, V]`.
    """
    rows, vocab = logits.shape[:-1], logits.shape[-1]
    if allowed is not None:
        logits = jnp.where(allowed, logits, -jnp.inf)
    greedy = sampling.temperature <= 0
    logits = logits / jnp.where(greedy, 1.0, sampling.temperature)

    flat = logits.reshape(-1, vocab)
    peak = flat.max(axis=-1, keepdims=True)
    weight = jnp.exp(flat - peak)
    weight = jnp.pad(weight, ((0, 0), (0, -vocab % _BLOCK))).reshape(len(flat), -1, _BLOCK)
    block_sums = weight.sum(axis=-1)
    block_cdf = jnp.cumsum(block_sums, axis=-1)
    total = block_cdf[:, -1]
    target = uniform.reshape(-1) * total
    block = _first_above(block_cdf, target, block_sums)
    before = jnp.where(block > 0, _take_last(block_cdf, jnp.maximum(block - 1, 0)), 0.0)
    inside = jnp.take_along_axis(weight, block[:, None, None], axis=1)[:, 0]
    token = block * _BLOCK + _first_above(jnp.cumsum(inside, axis=-1), target - before, inside)
    token = jnp.where(greedy, jnp.argmax(flat, axis=-1), token).astype(jnp.int32)
    logprob = _take_last(flat, token) - peak[:, 0] - jnp.log(total)
    return token.reshape(rows), logprob.reshape(rows)


def _first_above(cdf, target, weight):
    """Finds the first index whose `cdf` exceeds `target`, kept on positive `weight`.

    Rounding may push the target past the last positive entry: the last one is then taken.
    """
    index = jnp.argmax((cdf > target[:, None]) & (weight > 0), axis=-1)
    found = (cdf[:, -1] > target) & (_take_last(weight, index) > 0)
    last = weight.shape[-1] - 1 - jnp.argmax((weight > 0)[:, ::-1], axis=-1)
    return jnp.where(found, index, last)
