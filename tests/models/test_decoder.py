"""The block chain, the cache and stored contexts against one plain forward pass a sample."""

import dataclasses
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_decoder import (
    CONFIG,
    CONFIGS,
    random_block,
    random_chain,
    random_params,
)

from memr1_jax.models.decoder import Block, Decoder, empty_cache, init_params
from memr1_jax.models.decoder_config import PRESETS

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 100
BATCH = 25  # cases of one compiled call
TOLERANCE = 1e-4
# In float32, normalised queries and keys leave up to 1.4e-4 in 3,000 cases; a wrong mask or
# position, above 0.1.
GRADIENT_TOLERANCE = 5e-4


@partial(jax.jit, static_argnums=0)
def logits_of_chain(decoder, params, blocks):
    """Logits `[*lead, T, V]` of every block."""

    def run(module, blocks):
        return tuple(module.logits(hidden) for hidden in module(blocks))

    return decoder.apply({"params": params}, blocks, method=run)


def logits_of_long_rows(decoder, params, blocks):
    """Returns the same as `[B, G, T, V]`, from one row a sample that repeats all above it."""
    instruction, prompt, response = blocks
    lead = response.length.shape
    parts = (
        jnp.broadcast_to(instruction.tokens, (*lead, instruction.tokens.shape[-1])),
        jnp.broadcast_to(prompt.tokens[:, None], (*lead, prompt.tokens.shape[-1])),
        response.tokens,
    )
    lengths = [
        jnp.broadcast_to(length, lead)[..., None]
        for length in (instruction.length, prompt.length[:, None], response.length)
    ]
    index = jnp.arange(sum(part.shape[-1] for part in parts))
    row, start = jnp.zeros((*lead, len(index)), jnp.int32), jnp.zeros((*lead, 1), jnp.int32)
    for part, length in zip(parts, lengths, strict=True):
        place = jnp.clip(index - start, 0, max(part.shape[-1] - 1, 0))
        here = (index >= start) & (index < start + length)
        row = jnp.where(here, jnp.take_along_axis(part, place, -1), row)
        start = start + length
    (logits,) = logits_of_chain(decoder, params, (Block(row, start[..., 0]),))
    found, start = [], jnp.zeros((*lead, 1), jnp.int32)
    for part, length in zip(parts, lengths, strict=True):
        place = jnp.clip(start + jnp.arange(part.shape[-1]), 0, len(index) - 1)
        found.append(jnp.take_along_axis(logits, place[..., None], -2))
        start = start + length
    return tuple(found)


def masks(blocks):
    """Tells which tokens of each block are real `[*lead, T]`."""
    return [jnp.arange(b.tokens.shape[-1]) < b.length[..., None] for b in blocks]


@partial(jax.jit, static_argnums=0)
def chain_error(decoder, params, blocks):
    """Returns the largest difference of chain and long rows over all real tokens, `[cases]`."""

    def one(blocks):
        chain = logits_of_chain(decoder, params, blocks)
        chain = (chain[0][None, None], chain[1][:, None], chain[2])
        valid = masks(blocks)
        valid = (valid[0][None, None], valid[1][:, None], valid[2])
        long = logits_of_long_rows(decoder, params, blocks)
        errors = [
            jnp.where(v[..., None], jnp.abs(c - r), 0).max()
            for c, r, v in zip(chain, long, valid, strict=True)
        ]
        return jnp.stack(errors).max()

    return jax.vmap(one)(blocks)


@partial(jax.jit, static_argnums=0)
def chain_gradients(decoder, params, blocks, weights):
    """Gradients of a weighted sum of response log-probabilities, by chain and by long rows."""

    def loss(forward, params, blocks, weights):
        logits = forward(decoder, params, blocks)[-1]
        logits = jax.nn.log_softmax(logits[..., :-1, :])
        tokens, valid = blocks[-1].tokens[..., 1:], masks(blocks)[-1][..., 1:]
        chosen = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]
        return jnp.where(valid, chosen * weights, 0).sum()

    return tuple(
        jax.vmap(jax.grad(partial(loss, forward)), (None, 0, 0))(params, blocks, weights)
        for forward in (logits_of_chain, logits_of_long_rows)
    )


def assert_close_per_case(actual, expected):
    """Checks leaves `[cases, ...]`: differences are small compared with the largest entry."""

    def compare(path, a, b):
        axes = tuple(range(1, a.ndim))
        error, size = np.abs(a - b).max(axes), np.abs(b).max(axes)
        assert (error <= GRADIENT_TOLERANCE * size + 1e-6).all(), (path, (error / size).max())

    jax.tree_util.tree_map_with_path(compare, *jax.tree.map(np.asarray, (actual, expected)))


@pytest.mark.parametrize("name", CONFIGS)
def test_chain_equals_long_rows(name):
    decoder, params = Decoder(CONFIGS[name]), random_params(CONFIGS[name])

    @settings(max_examples=CASES // BATCH, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        rng = np.random.default_rng(seed)
        blocks = random_chain(rng, (BATCH,))
        assert chain_error(decoder, params, blocks).max() < TOLERANCE
        weights = rng.normal(size=(BATCH, 2, 3, 4)).astype(np.float32)
        gradients, expected = chain_gradients(decoder, params, blocks, weights)
        assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected))
        assert_close_per_case(gradients, expected)

    check()


def test_padding_tokens_do_not_matter():
    decoder, params = Decoder(CONFIG), random_params(CONFIG)
    rng = np.random.default_rng(0)
    blocks = random_chain(rng, instruction=5, prompts=4)

    def padded(block, kind):
        last = np.take_along_axis(block.tokens, np.maximum(block.length - 1, 0)[..., None], -1)
        other = {
            "zeros": np.zeros_like(block.tokens),
            "stop": last,  # padding equals the last real token, as where pad is the stop token
            "random": rng.integers(0, CONFIG.vocab_size, block.tokens.shape),
        }[kind]
        real = np.arange(block.tokens.shape[-1]) < block.length[..., None]
        return Block(np.where(real, block.tokens, other).astype(np.int32), block.length)

    @jax.jit
    def run(params, blocks):
        def loss(params):
            logits = logits_of_chain(decoder, params, blocks)
            valid = masks(blocks)
            kept = [jnp.where(v[..., None], x, 0) for x, v in zip(logits, valid, strict=True)]
            return sum(jnp.sin(x).sum() for x in kept), kept

        return jax.value_and_grad(loss, has_aux=True)(params)

    expected = run(params, blocks)
    for kind in ("zeros", "stop", "random"):
        actual = run(params, tuple(padded(block, kind) for block in blocks))
        jax.tree.map(np.testing.assert_array_equal, actual[0][1], expected[0][1])
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), actual[1], expected[1])


def test_prompt_alone_equals_prompt_in_padded_batch():
    decoder, params = Decoder(CONFIG), random_params(CONFIG)
    instruction, prompt, response = random_chain(np.random.default_rng(1), prompts=4, prompt=9)
    row, length = 2, 3
    prompt.length[row] = length
    batch = logits_of_chain(decoder, params, (instruction, prompt, response))
    alone = Block(prompt.tokens[row : row + 1, :length], prompt.length[row : row + 1])
    answers = Block(response.tokens[row : row + 1], response.length[row : row + 1])
    single = logits_of_chain(decoder, params, (instruction, alone, answers))
    np.testing.assert_allclose(single[1][0], batch[1][row, :length], atol=1e-5)
    np.testing.assert_allclose(single[2][0], batch[2][row], atol=1e-5)


@pytest.mark.parametrize("width", [0, 3])
def test_empty_instruction_equals_none(width):
    decoder, params = Decoder(CONFIG), random_params(CONFIG)
    _, prompt, response = random_chain(np.random.default_rng(2))
    instruction = Block(np.full(width, 7, np.int32), np.int32(0))
    expected = logits_of_chain(decoder, params, (prompt, response))
    actual = logits_of_chain(decoder, params, (instruction, prompt, response))
    for a, b in zip(actual[1:], expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_empty_block_between_two_others():
    decoder, params = Decoder(CONFIG), random_params(CONFIG)
    instruction, prompt, response = random_chain(np.random.default_rng(3))
    empty = Block(prompt.tokens, np.zeros_like(prompt.length))
    expected = logits_of_chain(decoder, params, (instruction, prompt, response))
    chain = (instruction, prompt, empty, response)
    actual = logits_of_chain(decoder, params, chain)
    np.testing.assert_allclose(actual[-1], expected[-1], atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_equals_full_forward(name):
    decoder, params = Decoder(CONFIGS[name]), random_params(CONFIGS[name])
    apply = partial(decoder.apply, {"params": params})

    @jax.jit
    def by_steps(blocks, tokens):
        hidden, contexts = apply(blocks, method=Decoder.prefill)
        cache = empty_cache(decoder.config, tokens.shape[:-1], tokens.shape[-1], jnp.float32)

        def one(cache, inputs):
            token, step = inputs
            hidden, cache = apply(token, contexts, cache, step, method=Decoder.decode)
            return cache, hidden

        steps = jnp.arange(tokens.shape[-1])
        _, rest = jax.lax.scan(one, cache, (jnp.moveaxis(tokens, -1, 0), steps))
        return hidden, jnp.moveaxis(rest, 0, -2)

    blocks = random_chain(np.random.default_rng(4), response=7)
    last, decoded = by_steps(blocks[:-1], blocks[-1].tokens)
    _, prompt, response = apply(blocks)
    np.testing.assert_allclose(decoded, response, atol=TOLERANCE)
    expected = jnp.take_along_axis(prompt, blocks[1].length[:, None, None] - 1, 1)[:, 0]
    np.testing.assert_allclose(last, expected, atol=TOLERANCE)


def test_stored_context_equals_recomputation():
    decoder, params = Decoder(CONFIG), random_params(CONFIG)
    prefill = jax.jit(partial(decoder.apply, {"params": params}, method=Decoder.prefill))
    rng = np.random.default_rng(5)
    instruction, prompt, _ = random_chain(rng, prompts=3)
    more = random_block(rng, (3, 4), 1)
    expected, contexts = prefill((instruction, prompt, more))
    _, first = prefill((instruction,))
    _, two = prefill((prompt,), first)
    actual, three = prefill((more,), two)
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
    jax.tree.map(partial(np.testing.assert_allclose, atol=TOLERANCE), three, contexts)


def test_rematerialisation_keeps_gradients():
    params, blocks = random_params(CONFIG), (random_block(np.random.default_rng(6), (3, 6), 1),)

    def gradient(remat):
        decoder = Decoder(CONFIG, remat=remat)

        def loss(params):
            return jnp.sin(logits_of_chain(decoder, params, blocks)[-1]).sum()

        return jax.jit(jax.grad(loss))(params)

    expected = gradient("none")
    for remat in ("dots", "full"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()),
            gradient(remat),
            expected,
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_parameter_count(name):
    params = jax.eval_shape(partial(init_params, CONFIGS[name]), jax.random.key(0))
    assert CONFIGS[name].num_parameters == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_published_parameter_counts():
    published = {
        "llama-3.1-8b": 8_030_261_248,
        "llama-3.2-1b": 1_235_814_400,
        "llama-3.2-3b": 3_212_749_824,
        "qwen2.5-0.5b": 494_032_768,
        "qwen2.5-7b": 7_615_616_512,
        "qwen3-0.6b": 596_049_920,
        "qwen3-4b": 4_022_468_096,
        "qwen3-8b": 8_190_735_360,
        "gemma-3-270m": 268_098_176,
        "gemma-3-1b": 999_885_952,
        "smollm3-3b": 3_075_098_624,
        "mistral-7b-v0.3": 7_248_023_552,
        "smollm2-135m": 134_515_008,
        "smollm2-360m": 361_821_120,
        "smollm2-1.7b": 1_711_376_384,
    }
    assert {name: PRESETS[name].num_parameters for name in published} == published


def test_heads_must_divide():
    with pytest.raises(ValueError, match=r"num_heads \(4\) must be a multiple of num_kv_heads \(3"):
        dataclasses.replace(CONFIG, num_kv_heads=3)
