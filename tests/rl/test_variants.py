"""Variants of GRPO: sequence ratios, weights against the sampler, flat groups left out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, random_params

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.rl.losses import denominators, policy_loss, sampler_weights
from memr1_jax.rl.update import Experience, GRPOOptions, create_state, update

NEW = jnp.array([[-0.9, -0.5, -1.5, -1.0], [-0.9, -0.5, 0.5, -1.0]])
OLD = jnp.full((2, 4), -1.0)
ADVANTAGES = jnp.array([[1.0], [-1.0]])
MASK = jnp.array([[1, 1, 1, 0], [1, 1, 1, 1]])


def _sequence_loss(new=NEW, clip=0.2):
    return policy_loss(
        new,
        OLD,
        ADVANTAGES,
        MASK,
        clip_low=clip,
        clip_high=clip,
        ratio="sequence",
        aggregation="seq-mean-token-mean",
        denominators=denominators(MASK),
    )


def test_golden_sequence_ratio():
    # Mean log-ratios (0.1 + 0.5 - 0.5) / 3 and (0.1 + 0.5 + 1.5) / 4; the second ratio, 1.690459,
    # is beyond the clip, but with a negative advantage the plain loss is the larger one.
    first, second = np.exp(0.1 / 3), np.exp(2.1 / 4)
    terms = _sequence_loss()
    np.testing.assert_allclose(terms.loss, 0.328282, atol=1e-6)
    np.testing.assert_allclose(terms.loss, (second - first) / 2, rtol=1e-6)
    assert terms.metrics["clip_fraction"].value() == 0
    gradient = jax.grad(lambda new: _sequence_loss(new).loss)(NEW)
    expected = [[-first / 6] * 3 + [0], [second / 8] * 4]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_a_sequence_is_clipped_as_a_whole():
    terms = _sequence_loss(clip=0.02)
    np.testing.assert_allclose(terms.loss, (np.exp(2.1 / 4) - 1.02) / 2, rtol=1e-6)
    np.testing.assert_allclose(terms.metrics["clip_fraction"].value(), 3 / 7, rtol=1e-6)
    gradient = jax.grad(lambda new: _sequence_loss(new, 0.02).loss)(NEW)
    assert not np.any(gradient[0]) and np.all(np.asarray(gradient[1]) > 0)


def test_padding_does_not_enter_a_sequence_ratio():
    spoiled = NEW.at[0, 3].set(-jnp.inf)
    assert _sequence_loss(spoiled).loss == _sequence_loss().loss
    assert np.isfinite(jax.grad(lambda new: _sequence_loss(new).loss)(spoiled)).all()


def test_unknown_ratio_is_named():
    with pytest.raises(ValueError, match="'word'"):
        policy_loss(
            NEW,
            OLD,
            ADVANTAGES,
            MASK,
            clip_low=0.2,
            clip_high=0.2,
            ratio="word",
            aggregation="token-mean",
            denominators=denominators(MASK),
        )


def test_golden_weights_against_the_sampler():
    old, sampler = jnp.full(4, -1.0), jnp.array([-1.5, -1.0, -3.0, -jnp.inf])
    mask = jnp.array([1, 1, 1, 0])
    weights = sampler_weights(old, sampler, mask, 2.0)
    np.testing.assert_allclose(weights, [1.648721, 1.0, 2.0, 1.0], atol=1e-6)

    def loss(logp):
        return policy_loss(
            logp,
            old,
            jnp.ones(1),
            mask,
            clip_low=0.2,
            clip_high=0.2,
            weights=sampler_weights(logp, sampler, mask, 2.0),
            aggregation="token-mean",
            denominators=denominators(mask),
        ).loss

    np.testing.assert_allclose(loss(old), -(1.648721 + 1 + 2) / 3, atol=1e-6)
    # Weights scale the gradient and have none of their own.
    np.testing.assert_allclose(jax.grad(loss)(old), [-1.648721 / 3, -1 / 3, -2 / 3, 0], atol=1e-6)


def test_flat_groups_can_be_left_out():
    """Counts prompts of equal scores as little as padding rows, with every variant on."""
    config = dataclasses.replace(
        CONFIG, vocab_size=24, num_layers=1, model_width=32, num_heads=2, num_kv_heads=1
    )
    decoder, optimizer = Decoder(config, remat="none"), optax.sgd(0.1)
    params = jax.device_put(random_params(config))
    algorithm = GRPOOptions(
        group=2,
        kl_weight=0.0,
        entropy_weight=0.1,
        ratio="sequence",
        sampler_cap=2.0,
        aggregation="seq-mean-token-mean",
        mini_batches=2,
        drop_flat_groups=True,
    )
    rng = np.random.default_rng(0)

    def tokens(*shape):
        return jnp.array(rng.integers(0, 24, shape), jnp.int32)

    experience = Experience(
        prompt=Block(tokens(4, 3), jnp.array([3, 2, 1, 3])),
        response=Block(tokens(4, 2, 4), jnp.array(rng.integers(1, 5, (4, 2)), jnp.int32)),
        logprobs=jnp.array(rng.normal(-3, 0.5, (4, 2, 4)), jnp.float32),
        rewards=jnp.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.9], [0.0, 0.0]]),
        stopped=jnp.ones((4, 2), bool),
        valid=jnp.ones(4, bool),
        shown=jnp.zeros(4, jnp.int32),
    )

    @jax.jit
    def step(experience):
        state = create_state(params, optimizer, 0)
        instruction = Block(jnp.array([3]), jnp.int32(1))
        return update(algorithm, decoder, optimizer, state, None, instruction, experience)

    after, metrics = step(experience)
    alone, _ = step(experience.replace(valid=jnp.array([True, False, True, False])))
    jax.tree.map(np.testing.assert_array_equal, after.params, alone.params)
    assert float(metrics["informative_groups"].value()) == 0.5
    assert float(metrics["reward"].value()) == pytest.approx(3.1 / 8)
    other, _ = step(experience.replace(valid=jnp.array([True, True, False, True])))
    gaps = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), after.params, other.params)
    assert max(jax.tree.leaves(gaps)) > 1e-4
