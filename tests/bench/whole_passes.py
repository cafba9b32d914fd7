"""Greedy responses by whole forward passes, a token at a time: no cache, batch or sampler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.models.decoder import Block, Decoder

WIDTH = 256


@functools.partial(jax.jit, static_argnums=0)
def _likeliest(decoder, params, tokens, length):
    """Returns the likeliest next token after a whole forward pass."""
    (hidden,) = decoder.apply({"params": params}, (Block(tokens, length),))
    logits = decoder.apply({"params": params}, hidden[length - 1], method=Decoder.logits)
    return jnp.argmax(logits)


def greedy(model, text, steps):
    """Returns the tokens of a response to a prompt, without the one that stops it."""
    tokens = model.tokenizer.encode(text, add_special_tokens=False)
    begin = len(tokens)
    for _ in range(steps):
        padded = jnp.asarray(np.pad(tokens, (0, WIDTH - len(tokens))), jnp.int32)
        tokens.append(int(_likeliest(model.decoder, model.params, padded, jnp.int32(len(tokens)))))
        if tokens[-1] in model.stop_tokens:
            return tokens[begin:-1]
    return tokens[begin:]
