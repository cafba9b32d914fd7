import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.rl import advantages

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200


@pytest.mark.parametrize(
    "kind, scores, expected",
    [
        ("grpo", [1, 0, 0, 1, 0], [1.095443, -0.730295, -0.730295, 1.095443, -0.730295]),
        ("grpo", [0.5, 0.25, 0, 0.8], [0.328487, -0.401484, -1.131454, 1.204451]),
        ("dr_grpo", [1, 0, 0, 1, 0], [0.6, -0.4, -0.4, 0.6, -0.4]),
        ("rloo", [1, 0, 0, 1, 0], [0.75, -0.5, -0.5, 0.75, -0.5]),
        ("grpo", [1], [0.999999]),
        ("dr_grpo", [0.7], [0.7]),
        ("rloo", [0.7], [0.7]),
    ],
)
def test_golden_values(kind, scores, expected):
    result = advantages.group_advantages(jnp.array([scores], jnp.float32), kind)
    np.testing.assert_allclose(result, [expected], atol=1e-5)
    assert result.dtype == jnp.float32


@pytest.mark.parametrize("kind", advantages.ADVANTAGES)
@pytest.mark.parametrize("score", [0.0, 1.0, 0.1, -0.0037, 1 / 3])
def test_equal_scores_give_exactly_zero(kind, score):
    # 0.1 and 1/3 are not exact in float32: their mean differs from them by rounding.
    scores = jnp.full((1, 7), score, jnp.float32)
    assert not np.asarray(advantages.group_advantages(scores, kind)).any()


@pytest.mark.parametrize("kind", ["dr_grpo", "rloo"])
def test_undivided_advantages_are_those_of_the_penalised_scores(kind):
    random = np.random.default_rng(0)
    scores, penalties = jnp.array(random.normal(0, 1, (2, 5, 4)), jnp.float32)
    found = advantages.group_advantages(scores, kind, penalties)
    expected = advantages.group_advantages(scores - penalties, kind)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", advantages.ADVANTAGES)
def test_weighted_samples_are_compared_with_what_the_weights_restore(kind):
    scores, weights = jnp.array([[1.0, 0.0, 3.0]]), jnp.array([[2.0, 1.0, 0.0]])
    found = advantages.group_advantages(scores, kind, weights=weights)
    expected = np.array([[1.0, 0.0, 3.0]]) - 2 / 3
    if kind == "grpo":
        expected /= np.sqrt(2 / 9)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", advantages.ADVANTAGES)
def test_a_penalty_is_never_divided(kind):
    """Lets outcomes differ by nothing at all, by rounding, by a whole point."""
    penalties = jnp.array([[0.001, 0.003, 0.002]])
    centred = (penalties - penalties.mean()) * (1.5 if kind == "rloo" else 1.0)
    for scores in ([0, 0, 0], [0.1, 0.1, 0.1001], [1, 0, 1]):
        scores = jnp.array([scores], jnp.float32)
        found = advantages.group_advantages(scores, kind, penalties)
        plain = advantages.group_advantages(scores, kind)
        np.testing.assert_allclose(plain - found, centred, atol=1e-6)
    alone = advantages.group_advantages(jnp.array([[0.7]]), kind, jnp.array([[0.2]]))
    np.testing.assert_allclose(alone, [[0.5]], atol=1e-5)


def test_rewards_of_integer_type_are_accepted():
    result = advantages.group_advantages(jnp.array([[1, 0]]), "dr_grpo")
    np.testing.assert_array_equal(result, [[0.5, -0.5]])


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'gae'.*grpo, dr_grpo, rloo"):
        advantages.group_advantages(jnp.zeros((1, 2)), "gae")


def _plain(scores, kind):
    """Computes one group at a time, in float64, as the papers write it."""
    if len(set(scores)) == 1:
        return [0.0] * len(scores)
    mean = sum(scores) / len(scores)
    if kind == "rloo":
        total, others = sum(scores), len(scores) - 1
        return [score - (total - score) / others for score in scores]
    deviation = (sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)) ** 0.5
    return [(score - mean) / ((deviation + 1e-6) if kind == "grpo" else 1) for score in scores]


@pytest.mark.parametrize("kind", advantages.ADVANTAGES)
def test_equals_plain_python_on_random_groups(kind):
    random = np.random.default_rng(0)
    scores = random.integers(0, 3, (CASES, 4)) / 2.0  # coarse, so that equal groups occur
    result = jax.jit(advantages.group_advantages, static_argnums=1)(jnp.asarray(scores), kind)
    expected = [_plain(list(group), kind) for group in scores]
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(result.sum(-1), 0.0, atol=1e-5)


def test_informative_groups():
    scores = jnp.array([[1, 0, 1], [1, 1, 1], [0, 0, 0], [0.1, 0.1, 0.2]])
    np.testing.assert_array_equal(advantages.informative_groups(scores), [True, False, False, True])
    np.testing.assert_array_equal(advantages.informative_groups(scores[:, :1]), [True] * 4)


def test_reward_lands_on_the_last_unmasked_token():
    mask = jnp.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    rewards = advantages.last_token_rewards(jnp.array([1.0, 0.5, 9.0, 2.0]), mask)
    np.testing.assert_array_equal(
        rewards, [[0, 0, 1, 0], [0, 0, 0.5, 0], [0, 0, 0, 0], [0, 0, 0, 2]]
    )
