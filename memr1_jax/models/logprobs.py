"""Log-probabilities and entropies of given tokens, in chunks, so that `[..., R, V]` never exists.

Axis letters: R response length, D model width, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.parallel.activations import split_tokens


class TokenStatistics(NamedTuple):
    """Log-probability of each token and entropy of its distribution, `[..., R]`, in nats."""

    logprobs: jax.Array
    entropy: jax.Array


def shift_hidden(hidden: tuple[jax.Array, ...], prompt_length: jax.Array) -> jax.Array:
    """Returns the hidden states `[B, G, R, D]` that predict each response token.

    The first is the prompt's last real one, the others those of the response, one place earlier.

    Args:
      hidden: final hidden states of the chain; the last two are `[B, P, D]` and `[B, G, R, D]`.
      prompt_length: `[B]`.
    """
    prompt, response = hidden[-2:]
    last = jnp.take_along_axis(prompt, (prompt_length - 1)[..., None, None], axis=-2)
    last = jnp.broadcast_to(last[..., None, :, :], (*response.shape[:-2], 1, response.shape[-1]))
    return jnp.concatenate([last, response[..., :-1, :]], axis=-2)


def token_statistics(
    decoder: Decoder,
    params: dict,
    hidden: jax.Array,
    tokens: jax.Array,
    temperature: jax.Array,
    *,
    chunk: int = 128,
    allowed=None,
    allowed_inputs: tuple[jax.Array, ...] = (),
) -> TokenStatistics:
    """Computes statistics of `tokens` `[..., R]` as predicted by `hidden` `[..., R, D]`.

    Runs over chunks of `chunk` positions, recomputing logits in the backward pass. With `allowed`,
    a function from `allowed_inputs`, each `[..., R]`, to a mask `[..., V]`, probabilities are those
    of the distribution restricted to the allowed tokens.
    """
    shape, count = tokens.shape, tokens.size
    chunk = min(chunk, count)
    flat = (hidden.reshape(count, -1), tokens.reshape(count))
    flat += tuple(array.reshape(count) for array in allowed_inputs)
    padding = -count % chunk
    flat = jax.tree.map(
        lambda x: jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)).reshape(
            -1, chunk, *x.shape[1:]
        ),
        flat,
    )

    flat = (split_tokens(flat[0]), *flat[1:])

    @jax.checkpoint
    def one_chunk(inputs):
        hidden, tokens, *rest = inputs
        logits = decoder.apply({"params": params}, hidden, method=Decoder.logits) / temperature
        if allowed is not None:
            logits = jnp.where(allowed(*rest), logits, -1e30)
        log_total = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
        probability = jnp.exp(logits - log_total[:, None])
        entropy = log_total - jnp.sum(probability * logits, axis=-1)
        return chosen - log_total, entropy

    logprobs, entropy = jax.lax.map(one_chunk, flat)
    return TokenStatistics(
        logprobs.reshape(-1)[:count].reshape(shape), entropy.reshape(-1)[:count].reshape(shape)
    )


def response_statistics(
    decoder: Decoder,
    params: dict,
    blocks: tuple[Block, ...],
    temperature: jax.Array,
    **options,
) -> TokenStatistics:
    """Computes `token_statistics` of the chain's last block `[B, G, R]`, given those above."""
    hidden = decoder.apply({"params": params}, blocks)
    predicting = shift_hidden(hidden, blocks[-2].length)
    return token_statistics(decoder, params, predicting, blocks[-1].tokens, temperature, **options)
