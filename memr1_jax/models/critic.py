"""The critic: the decoder with a scalar head that predicts the outcome at each response token.

Its parameters are `{"decoder": ..., "value_head": {"kernel": [D], "bias": []}}`, where the decoder
has no output head: a critic makes no logits.

Axis letters: B prompts, G samples a prompt, R response length, D model width.
"""

import dataclasses

import jax
import jax.numpy as jnp

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.logprobs import shift_hidden


def init_critic(params: dict, key: jax.Array, width: int) -> dict:
    """Makes a critic from a policy's decoder, with a small random head (std 1 / D).

    Final hidden states have entries of about 1, so the first values have a size of 1 / sqrt(D): the
    first advantages are almost those of the rewards alone.

    Args:
        params: the policy's trained part; copied, so that either network's may be donated.
        key: for the head.
        width: D.
    """
    decoder = {name: part for name, part in params.items() if name != "head"}
    head = {"kernel": jax.random.normal(key, (width,)) / width, "bias": jnp.zeros(())}
    return {"decoder": jax.tree.map(jnp.copy, decoder), "value_head": head}


def response_values(decoder: Decoder, params: dict, blocks: tuple[Block, ...]) -> jax.Array:
    """Returns the value `[B, G, R]` (float32) of each response token, read one position before.

    The value of the first token is read at the end of the prompt: it knows the state, not the
    token (as in verl).

    Args:
        decoder: the policy's network; its output head is not used.
        params: of the critic.
        blocks: the chain; the last two are prompt `[B, P]` and response `[B, G, R]`.
    """
    # A tied decoder is one that has no output head of its own.
    trunk = decoder.clone(config=dataclasses.replace(decoder.config, tie_embeddings=True))
    hidden = trunk.apply({"params": params["decoder"]}, blocks)
    before = shift_hidden(hidden, blocks[-2].length).astype(jnp.float32)
    head = params["value_head"]
    return before @ head["kernel"] + head["bias"]
