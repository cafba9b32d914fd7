"""Sampling: prefill and decoding in one compiled program, tokens in and tokens out.

Axis letters: B prompts, G samples a prompt, R response length, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.models.decoder import Block, Context, Decoder, empty_cache
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
    response was cut off.
    """

    tokens: jax.Array
    length: jax.Array
    logprobs: jax.Array
    stopped: jax.Array

    @property
    def block(self) -> Block:
        """The responses as a block of the chain."""
        return Block(self.tokens, self.length)


def rollout_weights(params: dict, dtype: Any) -> dict:
    """Casts weights for `generate`, and on a mesh gathers them over fsdp.

    Done once, outside of the decode loop, which would otherwise do it for every token.
    """
    return gather_weights(cast_weights(params, dtype), dtype)


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
) -> Samples:
    """Samples `group` responses to every prompt: rows are the last block's leading axes and G.

    Prompts are computed once, their keys are shared by the group. Ends early when every row has
    met a stop token. Row `i` draws from `fold_in(fold_in(key, row_ids[i]), step)`, so that a sample
    does not depend on the rest of the batch; `row_ids` `[*rows]` defaults to 0, 1, ... Rows
    outside `active` `[*rows]` give empty responses and delay nothing.
    """
    hidden, contexts = decoder.apply({"params": params}, blocks, past, method=Decoder.prefill)
    rows = (*hidden.shape[:-1], group)
    hidden = jnp.broadcast_to(hidden[..., None, :], (*rows, hidden.shape[-1]))
    if row_ids is None:
        row_ids = jnp.arange(hidden[..., 0].size).reshape(rows)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, row_ids.reshape(-1))
    stops = jnp.asarray(stop_tokens, jnp.int32)
    state = None if constraint is None else constraint.state

    def sample(hidden, state, step):
        logits = spread(decoder.apply({"params": params}, hidden, method=Decoder.logits))
        allowed = None
        if constraint is not None:
            allowed = constraint.allowed(state, max_tokens - step)
        uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, step)))(keys)
        tokens, logprobs = sample_tokens(logits, uniform.reshape(rows), sampling, allowed)
        if constraint is not None:
            state = constraint.advance(state, tokens)
        return tokens, logprobs, state

    def record(outputs, tokens, logprobs, done, step):
        out_tokens, out_logprobs, length = outputs
        return (
            out_tokens.at[..., step].set(jnp.where(done, 0, tokens)),
            out_logprobs.at[..., step].set(jnp.where(done, 0.0, logprobs)),
            length + ~done,
        )

    def is_stop(tokens):
        return (tokens[..., None] == stops).any(axis=-1)

    def unfinished(carry):
        step, _, done, *_ = carry
        return (step < max_tokens - 1) & ~done.all()

    def advance(carry):
        step, tokens, done, state, cache, outputs = carry
        hidden, cache = decoder.apply(
            {"params": params}, tokens, contexts, cache, step, method=Decoder.decode
        )
        step = step + 1
        tokens, logprobs, state = sample(hidden, state, step)
        outputs = record(outputs, tokens, logprobs, done, step)
        return step, tokens, done | is_stop(tokens), state, cache, outputs

    outputs = (
        jnp.zeros((*rows, max_tokens), jnp.int32),
        jnp.zeros((*rows, max_tokens), jnp.float32),
        jnp.zeros(rows, jnp.int32),
    )
    step = jnp.int32(0)
    done = jnp.zeros(rows, bool) if active is None else ~active
    tokens, logprobs, state = sample(hidden, state, step)
    outputs = record(outputs, tokens, logprobs, done, step)
    cache = empty_cache(decoder.config, rows, max_tokens, decoder.dtype)
    carry = (step, tokens, done | is_stop(tokens), state, cache, outputs)
    carry = jax.lax.while_loop(unfinished, advance, carry)
    done, (tokens, logprobs, length) = carry[2], carry[-1]
    return Samples(tokens, length, logprobs, done)


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
    before = jnp.where(block > 0, _take(block_cdf, jnp.maximum(block - 1, 0)), 0.0)
    inside = jnp.take_along_axis(weight, block[:, None, None], axis=1)[:, 0]
    token = block * _BLOCK + _first_above(jnp.cumsum(inside, axis=-1), target - before, inside)
    token = jnp.where(greedy, jnp.argmax(flat, axis=-1), token).astype(jnp.int32)
    logprob = _take(flat, token) - peak[:, 0] - jnp.log(total)
    return token.reshape(rows), logprob.reshape(rows)


def _first_above(cdf, target, weight):
    """Finds the first index whose `cdf` exceeds `target`, kept on positive `weight`.

    Rounding may push the target past the last positive entry: the last one is then taken.
    """
    index = jnp.argmax((cdf > target[:, None]) & (weight > 0), axis=-1)
    found = (cdf[:, -1] > target) & (_take(weight, index) > 0)
    last = weight.shape[-1] - 1 - jnp.argmax((weight > 0)[:, ::-1], axis=-1)
    return jnp.where(found, index, last)


def _take(array, index):
    return jnp.take_along_axis(array, index[:, None], axis=-1)[:, 0]
