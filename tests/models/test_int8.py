"""Weights as 8-bit integers: their error, and samples against the trainer's arithmetic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_decoder import CONFIGS, random_chain, random_params

from memr1_jax.models.decoder import Decoder
from memr1_jax.models.int8 import to_int8
from memr1_jax.models.logprobs import response_statistics
from memr1_jax.models.precision import cast_weights
from memr1_jax.models.sampler import Sampling, generate, rollout_weights

convert = jax.jit(to_int8)


def _plain(tree, inputs=1):
    """Multiplies integers by their scales again."""
    if not isinstance(tree, dict):
        return tree
    if "kernel_scale" not in tree:
        return {name: _plain(x, 2 if name == "output" else 1) for name, x in tree.items()}
    scale = np.expand_dims(tree["kernel_scale"], tuple(range(1, 1 + inputs)))
    rest = {name: x for name, x in tree.items() if name != "kernel_scale"}
    return rest | {"kernel": tree["kernel"].astype(np.float32) * scale}


@pytest.mark.parametrize("name", CONFIGS)
def test_samples_and_their_logprobs_are_those_of_the_rounded_weights(name):
    config = CONFIGS[name]
    decoder, params = Decoder(config), random_params(config)
    blocks = random_chain(np.random.default_rng(0))[:2]

    @functools.partial(jax.jit, static_argnames="int8")
    def sample(params, int8):
        sizes = {"group": 4, "max_tokens": 8, "stop_tokens": (5,)}
        weights = rollout_weights(params, jnp.float32, int8)
        return generate(decoder, weights, blocks, jax.random.key(0), Sampling.create(), **sizes)

    rounded = _plain(jax.device_get(convert(params)))
    found, expected = sample(params, True), sample(rounded, False)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    statistics = jax.jit(functools.partial(response_statistics, decoder, chunk=16))
    logprobs = statistics(rounded, (*blocks, found.block), 1.0).logprobs
    real = np.arange(8) < np.asarray(found.length)[..., None]
    np.testing.assert_allclose(found.logprobs, np.where(real, logprobs, 0), atol=1e-4)
    # What is trained is another policy, though a similar one.
    trained = statistics(params, (*blocks, found.block), 1.0).logprobs
    gap = np.abs(np.asarray(found.logprobs) - trained)[real].mean()
    assert 1e-4 < gap < 0.3


@pytest.mark.parametrize("name", CONFIGS)
def test_the_error_is_half_a_step_and_the_rest_is_unchanged(name):
    params = random_params(CONFIGS[name])
    params["layers"]["mlp"]["up"]["kernel"] = params["layers"]["mlp"]["up"]["kernel"].at[0].set(0)
    converted = jax.device_get(convert(params))
    kernels = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(_plain(converted)):
        place = [key.key for key in path]
        before = functools.reduce(lambda tree, key: tree[key], place, params)
        if place[-1] != "kernel":
            np.testing.assert_array_equal(leaf, before)
            continue
        kernels += 1
        holder = functools.reduce(lambda tree, key: tree[key], place[:-1], converted)
        assert holder["kernel"].dtype == np.int8 and np.abs(holder["kernel"]).max() == 127
        inputs = (1, 2) if place[-2] == "output" else (1,)
        assert holder["kernel_scale"].shape == tuple(np.delete(before.shape, inputs))
        step = np.expand_dims(holder["kernel_scale"], inputs)
        assert (np.abs(leaf - before) <= 0.5001 * step).all()
    assert kernels == 7
    narrow = cast_weights(converted, jnp.bfloat16)["layers"]["mlp"]["up"]
    assert narrow["kernel"].dtype == jnp.int8 and narrow["kernel_scale"].dtype == jnp.float32
