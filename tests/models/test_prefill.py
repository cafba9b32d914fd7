"""Prefill in parts against prefill of whole prompts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_decoder import CONFIGS, random_chain, random_params

from memr1_jax.models import prefill
from memr1_jax.models.decoder import Block, Decoder

PART = 4
LENGTHS = ([1, 4, 9], [5, 3, 8], [2, 1, 1])  # prompts of up to 10 tokens


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(prefill, "_FEWEST", PART)


def programs(decoder, params):
    def whole(blocks, active):
        return decoder.apply({"params": params}, blocks, method=Decoder.prefill)

    def in_parts(blocks, active):
        return prefill.prefill(decoder, params, blocks, (), active)

    return [jax.jit(f) for f in (whole, in_parts)]


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_give_what_the_whole_gives(name):
    whole, in_parts = programs(Decoder(CONFIGS[name]), random_params(CONFIGS[name]))
    instruction, prompt, _ = random_chain(np.random.default_rng(0), prompt=10, prompts=3)
    for lengths in LENGTHS:
        blocks = instruction, Block(prompt.tokens, np.array(lengths, np.int32))
        expected, above = whole(blocks, np.ones(3, bool))
        hidden, contexts = in_parts(blocks, np.ones(3, bool))
        np.testing.assert_allclose(hidden, expected, atol=1e-5)
        real = np.arange(10) < np.array(lengths)[:, None]
        for name in ("key", "value"):
            ours, theirs = (
                np.moveaxis(getattr(context, name), 3, 2)[:, real]  # [L, tokens, K, H]
                for context in (contexts[-1], above[-1])
            )
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        np.testing.assert_array_equal(contexts[-1].length, lengths)
        assert len(contexts) == 2


def test_what_lies_behind_the_longest_active_prompt_is_not_computed():
    config = CONFIGS["tied"]
    whole, in_parts = programs(Decoder(config), random_params(config))
    instruction, prompt, _ = random_chain(np.random.default_rng(1), prompt=10, prompts=3)
    blocks = instruction, Block(prompt.tokens, np.array([9, 3, 4], np.int32))
    active = np.array([False, True, True])
    hidden, contexts = in_parts(blocks, active)
    np.testing.assert_allclose(hidden[1:], whole(blocks, active)[0][1:], atol=1e-5)
    key = np.asarray(contexts[-1].key)  # [L, B, K, S, H]
    assert (key[..., PART:, :] == 0).all() and (key[..., :PART, :] != 0).all()


def test_bfloat16_is_read_in_parts_too():
    config = CONFIGS["tied"]
    decoder = Decoder(config, dtype=jnp.bfloat16)
    whole, in_parts = programs(decoder, random_params(config))
    blocks = random_chain(np.random.default_rng(2), prompt=10, prompts=3)[:2]
    expected, _ = whole(blocks, np.ones(3, bool))
    hidden, contexts = in_parts(blocks, np.ones(3, bool))
    assert contexts[-1].key.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (hidden, expected)), atol=0.1)


@pytest.mark.parametrize(("width", "part"), [(64, 4), (65, 8), (16, 4), (1024, 64), (4096, 256)])
def test_parts_are_few(width, part):
    assert prefill.part_length(width) == part


def test_kernels_take_prompts_as_a_whole():
    decoder = Decoder(CONFIGS["tied"], kernel="splash")
    blocks = random_chain(np.random.default_rng(3), prompt=10, prompts=3)[:2]
    read = partial(prefill.prefill, decoder, random_params(CONFIGS["tied"]), blocks)
    assert "while" not in str(jax.make_jaxpr(read)())
