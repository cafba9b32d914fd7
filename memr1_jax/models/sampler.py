"""Sampling: prefill and decoding in one compiled program, tokens in and tokens out.

Axis letters: B prompts, G samples a prompt, R response length, V vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.models.decoder import Block, Context, Decoder
from memr1_jax.models.decoding import (
    Constraint,
    Rest,
    Samples,
    decode_drafted,
    decode_singly,
    take_last,
)
from memr1_jax.models.int8 import to_int8
from memr1_jax.models.precision import cast_weights
from memr1_jax.models.prefill import prefill
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
    hidden, contexts = prefill(
        decoder, params, blocks, past, None if active is None else active.any(axis=-1)
    )
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

    allowed = None if constraint is None else constraint.allowed(state, jnp.int32(max_tokens))
    tokens, logprobs = draw(hidden, allowed, jnp.zeros(rows, jnp.int32))
    if constraint is not None:
        state = constraint.advance(state, tokens)
    done = jnp.zeros(rows, bool) if active is None else ~active
    rest = Rest(decoder, params, contexts, constraint, draw, is_stop, max_tokens)
    if drafts:
        chain = {"blocks": blocks, "drafts": drafts}
        return decode_drafted(rest, tokens, logprobs, state, done, **chain)
    return decode_singly(rest, tokens, logprobs, state, done)


def _uniform(keys, steps):
    """Draws from [0, 1) for rows `[N]` at steps `[N, T]`; each depends on its row and step only."""
    draw = jax.vmap(lambda key, step: jax.random.uniform(jax.random.fold_in(key, step)), (None, 0))
    return jax.vmap(draw)(keys, steps)


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
    before = jnp.where(block > 0, take_last(block_cdf, jnp.maximum(block - 1, 0)), 0.0)
    inside = jnp.take_along_axis(weight, block[:, None, None], axis=1)[:, 0]
    token = block * _BLOCK + _first_above(jnp.cumsum(inside, axis=-1), target - before, inside)
    token = jnp.where(greedy, jnp.argmax(flat, axis=-1), token).astype(jnp.int32)
    logprob = take_last(flat, token) - peak[:, 0] - jnp.log(total)
    return token.reshape(rows), logprob.reshape(rows)


def _first_above(cdf, target, weight):
    """Finds the first index whose `cdf` exceeds `target`, kept on positive `weight`.

    Rounding may push the target past the last positive entry: the last one is then taken.
    """
    index = jnp.argmax((cdf > target[:, None]) & (weight > 0), axis=-1)
    found = (cdf[:, -1] > target) & (take_last(weight, index) > 0)
    last = weight.shape[-1] - 1 - jnp.argmax((weight > 0)[:, ::-1], axis=-1)
    return jnp.where(found, index, last)
