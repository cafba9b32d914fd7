"""Chunked log-probabilities and entropies against the plain form."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_decoder import CONFIG, random_chain, random_params

from memr1_jax.models.decoder import Decoder
from memr1_jax.models.logprobs import response_statistics, shift_hidden, token_statistics


def allowed(state):
    """Masks tokens depending on the state; at least one token in seven is allowed."""
    return (jnp.arange(CONFIG.vocab_size) + state[..., None]) % 7 < 1 + state[..., None] % 6


def plain_statistics(logits, tokens, mask):
    """Log-probabilities and entropies from all logits at once."""
    logp = jax.nn.log_softmax(jnp.where(mask, logits, -jnp.inf))
    chosen = jnp.take_along_axis(logp, tokens[..., None], -1)[..., 0]
    terms = jnp.where(mask, jnp.exp(logp) * jnp.where(mask, logp, 0), 0)
    return chosen, -terms.sum(-1)


@pytest.mark.parametrize("masked", [False, True])
def test_chunks_equal_plain_form(masked):
    decoder, params = Decoder(CONFIG), random_params(CONFIG)
    rng = np.random.default_rng(0)
    shape = (2, 3, 5)
    tokens = rng.integers(0, CONFIG.vocab_size, shape).astype(np.int32)
    state = rng.integers(0, 50, shape)
    mask = np.ones((*shape, CONFIG.vocab_size), bool)
    options = {}
    if masked:
        mask = np.array(allowed(state))
        tokens = mask.argmax(-1).astype(np.int32)  # sampled tokens are always allowed
        options = {"allowed": allowed, "allowed_inputs": (state,)}
    hidden = rng.normal(size=(*shape, CONFIG.model_width)).astype(np.float32)
    weights = rng.normal(size=(2, *shape)).astype(np.float32)

    def plain(params, hidden, temperature):
        logits = decoder.apply({"params": params}, hidden, method=Decoder.logits)
        return jnp.stack(plain_statistics(logits / temperature, tokens, mask))

    def chunked(chunk, params, hidden, temperature):
        found = token_statistics(
            decoder, params, hidden, tokens, temperature, chunk=chunk, **options
        )
        return jnp.stack(found)

    def with_gradient(function):
        def loss(*args):
            found = function(*args)
            return (found * weights).sum(), found

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))

    reference = with_gradient(plain)
    for chunk in (7, 1000):  # of 30 tokens: neither divides
        run = with_gradient(partial(chunked, chunk))
        for temperature in (0.7, 1.0, 1.3):
            (_, expected), expected_gradient = reference(params, hidden, temperature)
            (_, actual), gradient = run(params, hidden, temperature)
            np.testing.assert_allclose(actual, expected, atol=1e-4)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max()),
                gradient,
                expected_gradient,
            )


def test_hand_written_distribution():
    decoder, params = Decoder(CONFIG), random_params(CONFIG)
    # An embedding of zeros but for one entry gives logits (log 3, 0, 0, ...).
    table = np.zeros((CONFIG.vocab_size, CONFIG.model_width), np.float32)
    table[0, 0] = np.log(3.0)
    params["embed"]["embedding"] = jnp.asarray(table)
    hidden = jnp.zeros((2, CONFIG.model_width)).at[:, 0].set(1.0)
    found = token_statistics(decoder, params, hidden, jnp.array([0, 5]), 1.0, chunk=2)
    total = 3 + 60
    np.testing.assert_allclose(found.logprobs, np.log([3 / total, 1 / total]), rtol=1e-5)
    entropy = np.log(total) - 3 / total * np.log(3)
    np.testing.assert_allclose(found.entropy, [entropy, entropy], rtol=1e-5)


def test_hidden_states_are_shifted_by_one():
    prompt = jnp.arange(2 * 4, dtype=jnp.float32).reshape(2, 4, 1)
    response = 100 + jnp.arange(2 * 2 * 3, dtype=jnp.float32).reshape(2, 2, 3, 1)
    found = shift_hidden((prompt, response), jnp.array([1, 3]))[..., 0]
    expected = [[[0, 100, 101], [0, 103, 104]], [[6, 106, 107], [6, 109, 110]]]
    np.testing.assert_array_equal(found, expected)


def largest_logits(gradient, *args):
    """Elements of the largest compiled buffer with a vocabulary axis that is not the table's."""
    text = jax.jit(gradient).lower(*args).compile().as_text()
    shapes = {
        tuple(map(int, shape.split(","))) for shape in re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", text)
    }
    table = {CONFIG.vocab_size, CONFIG.model_width}
    return max(
        math.prod(shape)
        for shape in shapes
        if CONFIG.vocab_size in shape and set(shape) - {1} != table
    )


def test_all_logits_never_exist():
    decoder, params = Decoder(CONFIG), random_params(CONFIG)
    blocks = random_chain(np.random.default_rng(0), prompts=2, group=4, response=32)
    tokens = blocks[-1].tokens

    def chain_loss(params, blocks):
        return sum(response_statistics(decoder, params, blocks, 1.0, chunk=8)).sum()

    def plain_loss(hidden, params):
        return sum(token_statistics(decoder, params, hidden, tokens, 1.0, chunk=10_000)).sum()

    assert largest_logits(jax.grad(chain_loss), params, blocks) == 8 * CONFIG.vocab_size
    # The same search finds them where they do exist.
    hidden = jnp.zeros((*tokens.shape, CONFIG.model_width))
    found = largest_logits(jax.grad(plain_loss), hidden, params)
    assert found == tokens.size * CONFIG.vocab_size
