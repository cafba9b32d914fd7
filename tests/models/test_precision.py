"""In bfloat16 a policy is the same where it is sampled, frozen and trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import CONFIG, random_params

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.hf.hf_weights import export_params, load_params
from memr1_jax.models.logprobs import response_statistics
from memr1_jax.models.precision import cast_weights
from memr1_jax.models.sampler import Sampling, generate, rollout_weights

SMALL = dataclasses.replace(CONFIG, vocab_size=48)
DECODER = Decoder(SMALL, jnp.bfloat16, remat="none")
BLOCKS = (Block(jnp.array([3, 1, 4]), jnp.int32(3)), Block(jnp.full((4, 6), 5), jnp.full(4, 6)))


def _rounded(params):
    """Returns all parameters in bfloat16, the scales of norms as well."""
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)


@pytest.fixture(scope="module")
def params():
    """Weights that bfloat16 holds, but for scales that training has moved a little."""
    made = jax.tree.map(
        lambda x: jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32), random_params(SMALL)
    )

    def move(path, leaf):
        return leaf * 1.003 if path[-1].key == "scale" else leaf

    return jax.tree_util.tree_map_with_path(move, made)


@jax.jit
def _gap(sampled, trained):
    """Returns the mean distance of both passes' log-probabilities, nats a token."""
    samples = generate(
        DECODER,
        sampled,
        BLOCKS,
        jax.random.key(0),
        Sampling.create(),
        group=8,
        max_tokens=12,
        stop_tokens=(),
    )
    found = response_statistics(DECODER, trained, (*BLOCKS, samples.block), 1.0).logprobs
    return jnp.abs(samples.logprobs - found).mean()


def test_the_sampler_rounds_what_the_trainer_rounds(params):
    gap = _gap(rollout_weights(params, DECODER.dtype), params)
    with_rounded_scales = _gap(_rounded(params), params)
    print(f"gap {gap:.4f}, with rounded scales {with_rounded_scales:.4f} nats a token")
    assert gap < 0.5 * with_rounded_scales


def test_frozen_weights_give_the_trainers_log_probabilities(params):
    """Covers reference, Answer Agent and judge before anything has been learned."""
    rng = np.random.default_rng(0)
    response = Block(jnp.array(rng.integers(0, 48, (4, 2, 5)), jnp.int32), jnp.full((4, 2), 5))

    @jax.jit
    def logprobs(params):
        return response_statistics(DECODER, params, (*BLOCKS, response), 1.0).logprobs

    frozen = logprobs(cast_weights(params, jnp.bfloat16))
    np.testing.assert_array_equal(frozen, logprobs(params))
    assert np.abs(logprobs(_rounded(params)) - frozen).max() > 0


def test_scales_are_read_as_they_are_stored(params, tmp_path):
    folder = export_params(tmp_path / "model", jax.device_get(params), SMALL)
    found, _ = load_params(folder, dtype=jnp.bfloat16)
    np.testing.assert_array_equal(found["final_norm"]["scale"], params["final_norm"]["scale"])
    assert found["layers"]["attention_norm"]["scale"].dtype == np.float32
    assert found["embed"]["embedding"].dtype == jnp.bfloat16
