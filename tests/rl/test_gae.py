import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.rl import gae

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200

REWARDS = jnp.array([[0, 0, 1], [0, 1, 0]])
VALUES = jnp.array([[0.5, 0.4, 0.3], [0.2, 0.6, 0.9]])
MASK = jnp.array([[1, 1, 1], [1, 1, 0]])


def test_golden_advantages_returns_and_whitening():
    advantages, returns = gae.generalised_advantages(
        REWARDS, VALUES, MASK, gamma=0.9, gae_lambda=0.8
    )
    np.testing.assert_allclose(advantages, [[0.12928, 0.374, 0.7], [0.628, 0.4, 0]], atol=1e-5)
    np.testing.assert_allclose(returns, [[0.62928, 0.774, 1], [0.828, 1, 0]], atol=1e-5)
    np.testing.assert_allclose(
        gae.whiten(advantages, MASK),
        [[-1.399308, -0.318978, 1.120167], [0.802319, -0.204200, 0]],
        atol=1e-5,
    )


def test_golden_values_without_discount():
    advantages, returns = gae.generalised_advantages(REWARDS, VALUES, MASK, gamma=1, gae_lambda=1)
    np.testing.assert_allclose(returns, MASK, atol=1e-6)
    np.testing.assert_allclose(
        gae.whiten(advantages, MASK),
        [[-0.632456, 0, 0.632455], [1.264911, -1.264911, 0]],
        atol=1e-5,
    )


@pytest.mark.parametrize("hidden", [9.0, np.nan, np.inf])
def test_a_hole_in_the_mask_is_skipped(hidden):
    advantages, returns = gae.generalised_advantages(
        jnp.array([0.0, hidden, 1.0]),
        jnp.array([0.5, hidden, 0.3]),
        jnp.array([1, 0, 1]),
        gamma=0.9,
        gae_lambda=0.8,
    )
    np.testing.assert_allclose(advantages, [0.274, 0, 0.7], atol=1e-6)
    np.testing.assert_allclose(returns, [0.774, 0, 1.0], atol=1e-6)


def test_golden_whitening():
    values = jnp.array([[1, 2, 3], [4, 5, 100]])
    expected = [[-1.264911, -0.632456, 0], [0.632456, 1.264911, 0]]
    np.testing.assert_allclose(gae.whiten(values, MASK), expected, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_whitening_of_almost_nothing_is_finite(count):
    np.testing.assert_array_equal(gae.whiten(jnp.array([3.0, 5.0]), jnp.arange(2) < count), 0)


def test_masked_tokens_are_as_if_they_were_not_there():
    """Compares with the sum of discounted errors, written out over the unmasked tokens alone."""
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, CASES, 7)).astype(np.float32)
    mask = rng.random((CASES, 7)) < 0.6
    gamma, decay = 0.95, 0.7
    found, returns = jax.jit(
        lambda *arrays: gae.generalised_advantages(*arrays, gamma=gamma, gae_lambda=decay)
    )(rewards, values, mask)
    for case in range(CASES):
        kept = mask[case]
        r, v = rewards[case][kept], values[case][kept]
        errors = r + gamma * np.append(v[1:], 0)[: len(v)] - v
        plain = [
            sum((gamma * decay) ** (s - t) * errors[s] for s in range(t, len(v)))
            for t in range(len(v))
        ]
        np.testing.assert_allclose(found[case][kept], plain, atol=1e-4)
        np.testing.assert_allclose(returns[case][kept], np.asarray(plain) + v, atol=1e-4)
        assert not np.any(np.asarray(found[case])[~kept])


def test_advantages_are_constants():
    def total(values):
        return gae.generalised_advantages(REWARDS, values, MASK, gamma=1, gae_lambda=1)[0].sum()

    assert not np.any(jax.grad(total)(VALUES))
