import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.rl import advantages, kl

LOGP = jnp.array([[-1.0, -0.5, -2.0], [-0.3, -1.2, 0.0]])
REFERENCE = jnp.array([[-1.2, -0.4, -1.5], [-0.5, -1.0, 0.0]])
MASK = jnp.array([[1, 1, 1], [1, 1, 0]])

K1 = [[0.2, -0.1, -0.5], [0.2, -0.2, 0]]
ABS = [[0.2, 0.1, 0.5], [0.2, 0.2, 0]]
K2 = [[0.02, 0.005, 0.125], [0.02, 0.02, 0]]
K3 = [[0.018731, 0.005171, 0.148721], [0.018731, 0.021403, 0]]
K3_GRADIENT = [[0.181269, -0.105171, -0.648721], [0.181269, -0.221403, 0]]


@pytest.mark.parametrize(
    "kind, values, gradient",
    [
        ("k1", K1, np.ones((2, 3))),
        ("abs", ABS, np.sign(K1)),
        ("k2", K2, K1),
        ("k3", K3, K3_GRADIENT),
        ("k1+", K1, K1),
        ("k3+", K3, K1),
    ],
)
def test_golden_values_and_gradients(kind, values, gradient):
    np.testing.assert_allclose(kl.kl_estimate(LOGP, REFERENCE, kind), values, atol=1e-5)
    summed = jax.grad(lambda logp: kl.kl_estimate(logp, REFERENCE, kind).sum())(LOGP)
    np.testing.assert_allclose(summed, gradient, atol=1e-5)


def test_clamps_of_k3():
    logp = jnp.array([-30.0, 0.0, -2.0])
    reference = jnp.array([0.0, -30.0, 0.0])
    values = kl.kl_estimate(logp, reference, "k3")
    # exp(20) - 21 clamps to 10; exp(-20) + 20 - 1 = 19 clamps to 10; exp(2) - 3 stays.
    np.testing.assert_allclose(values, [10.0, 10.0, np.exp(2.0) - 3.0], rtol=1e-6)


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'k4'"):
        kl.kl_estimate(LOGP, REFERENCE, "k4")


def test_golden_values_of_kl_in_reward():
    rewards = jnp.array([[0, 0, 1], [0, 1, 0]])
    result = kl.kl_in_reward(rewards, LOGP, REFERENCE, MASK, 0.1)
    np.testing.assert_allclose(result, [[-0.02, 0.01, 1.05], [-0.02, 1.02, 0]], atol=1e-6)
    np.testing.assert_allclose(result.sum(-1), [1.04, 1.0], atol=1e-6)


def test_kl_in_reward_ignores_padding_and_has_no_gradient():
    padded = LOGP.at[1, 2].set(-jnp.inf)
    rewards = advantages.last_token_rewards(jnp.ones(2), MASK)
    result = kl.kl_in_reward(rewards, padded, REFERENCE, MASK, 0.1)
    np.testing.assert_allclose(result.sum(-1), [1.04, 1.0], atol=1e-6)
    gradient = jax.grad(lambda logp: kl.kl_in_reward(rewards, logp, REFERENCE, MASK, 0.1).sum())(
        LOGP
    )
    assert not np.asarray(gradient).any()


def test_expected_gradients_on_a_categorical():
    """Weighs each outcome by its probability, which is not differentiated."""
    logits = jnp.array([0.3, -0.7, 1.1, 0.0, -0.2])
    reference = jax.nn.log_softmax(jnp.array([-0.4, 0.5, 0.2, 0.9, -1.0]))

    def expected_loss(logits, kind):
        logp = jax.nn.log_softmax(logits)
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(logp)) * kl.kl_estimate(logp, reference, kind))

    def forward_kl(logits):
        logp = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(logp) * (logp - reference))

    def reverse_kl(logits):
        return jnp.sum(jnp.exp(reference) * (reference - jax.nn.log_softmax(logits)))

    def gradient(kind):
        return jax.grad(expected_loss)(logits, kind)

    policy_to_reference = jax.grad(forward_kl)(logits)
    reference_to_policy = jax.grad(reverse_kl)(logits)
    assert np.abs(policy_to_reference - reference_to_policy).max() > 0.05
    np.testing.assert_allclose(gradient("k1"), 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient("k2"), policy_to_reference, atol=1e-6)
    np.testing.assert_allclose(gradient("k3"), reference_to_policy, atol=1e-6)
    np.testing.assert_allclose(gradient("k1+"), policy_to_reference, atol=1e-6)
    np.testing.assert_allclose(gradient("k3+"), policy_to_reference, atol=1e-6)
    for kind in ("k1", "k3", "k1+", "k3+"):
        np.testing.assert_allclose(expected_loss(logits, kind), forward_kl(logits), atol=1e-6)
