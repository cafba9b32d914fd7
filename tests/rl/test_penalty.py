"""The KL penalty in the reward, in bfloat16: what was not earned is not learned."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, random_params

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.precision import cast_weights
from memr1_jax.rl.policy import net_rewards
from memr1_jax.rl.ppo import Optimizers, PPOOptions, create_ppo_state, ppo_update, token_advantages
from memr1_jax.rl.trajectories import Trajectories
from memr1_jax.rl.update import (
    Experience,
    GRPOOptions,
    create_state,
    sample_advantages,
    update,
)

SMALL = dataclasses.replace(CONFIG, vocab_size=48)
DECODER = Decoder(SMALL, jnp.bfloat16, remat="none")
INSTRUCTION = Block(jnp.array([3, 1, 4]), jnp.int32(3))
PROMPTS, GROUP, RESPONSE = 4, 4, 6
SGD = optax.sgd(1.0)
WAYS = {
    "grpo": GRPOOptions(group=GROUP),
    "rloo": GRPOOptions(group=GROUP, advantage="rloo"),
    "mini_batches": GRPOOptions(group=GROUP, mini_batches=2),
    "trajectories": GRPOOptions(group=GROUP),
    "ppo": PPOOptions(group=GROUP),
}
# The others differ in how advantages are made, which is checked below, and are tried by hand.
OFTEN = [name if name == "grpo" else pytest.param(name, marks=pytest.mark.slow) for name in WAYS]


@pytest.fixture(scope="module")
def params():
    return jax.device_put(random_params(SMALL))


@pytest.fixture(scope="module")
def reference(params):
    """Returns the weights before training, as a run keeps them."""
    return cast_weights(params, jnp.bfloat16)


def _experience(name, rewards):
    """Returns random responses; the sampler's log-probabilities are off by more than rounding."""
    rng = np.random.default_rng(0)
    rows = (PROMPTS, GROUP)
    tokens = jnp.array(rng.integers(0, 48, (*rows, RESPONSE)), jnp.int32)
    length = jnp.array(rng.integers(1, RESPONSE + 1, rows), jnp.int32)
    logprobs = jnp.array(rng.normal(-3, 0.5, (*rows, RESPONSE)), jnp.float32)
    trajectories, count = None, PROMPTS
    if name == "trajectories":  # 2 roots, 4 trajectories of 2 steps each
        trajectories, count = Trajectories(GROUP, 2), PROMPTS * GROUP
        rewards = jnp.repeat(rewards[:2].reshape(-1), 2)[:, None]
        tokens, logprobs = (x.reshape(count, 1, RESPONSE) for x in (tokens, logprobs))
        length = length.reshape(count, 1)
    return Experience(
        prompt=Block(jnp.full((count, 3), 7), jnp.full(count, 3)),
        response=Block(tokens, length),
        logprobs=logprobs,
        rewards=rewards,
        stopped=jnp.ones(length.shape, bool),
        valid=jnp.ones(count, bool),
        shown=jnp.zeros(count, jnp.int32),
        trajectories=trajectories,
    )


@functools.cache
def _step(name):
    algorithm = dataclasses.replace(WAYS[name], kl_weight=0.001, kl_placement="reward")

    @jax.jit
    def step(params, reference, experience):
        if name == "ppo":
            optimizers = Optimizers(SGD, SGD)
            state = create_ppo_state(params, optimizers, 0, SMALL.model_width)
            learn, optimizer = ppo_update, optimizers
        else:
            state, learn, optimizer = create_state(params, SGD, 0), update, SGD
        after, metrics = learn(
            algorithm, DECODER, optimizer, state, reference, INSTRUCTION, experience
        )
        moved = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, params))
        return moved, {key: mean.value() for key, mean in metrics.items()}

    return step


@pytest.mark.parametrize("name", OFTEN)
def test_equal_rewards_teach_nothing_before_the_first_step(name, params, reference):
    for reward in (0.0, 0.3):
        flat = _experience(name, jnp.full((PROMPTS, GROUP), reward, jnp.float32))
        moved, metrics = _step(name)(params, reference, flat)
        assert float(metrics["kl"]) == 0 and float(metrics["gradient_norm"]) == 0
        assert float(moved) == 0


@pytest.mark.parametrize("name", OFTEN)
def test_equal_rewards_teach_the_penalty_alone_after_it(name, params, reference):
    """Checks that a penalty of 0.001 a nat pulls a thousand times less than rewards do."""
    rng = np.random.default_rng(1)
    later = jax.tree.map(lambda x: x + jnp.array(rng.normal(0, 0.01, x.shape), jnp.float32), params)
    rewards = jnp.array(rng.integers(0, 2, (PROMPTS, GROUP)), jnp.float32).at[:, 0].set(1)
    rewards = rewards.at[:, 1].set(0)
    _, flat = _step(name)(later, reference, _experience(name, jnp.zeros_like(rewards)))
    _, earned = _step(name)(later, reference, _experience(name, rewards))
    print(name, float(flat["gradient_norm"]), float(earned["gradient_norm"]), float(flat["kl"]))
    assert float(flat["kl"]) != 0
    assert 0 < float(flat["gradient_norm"]) < 0.01 * float(earned["gradient_norm"])


def test_ppo_adds_the_penalty_after_whitening():
    """Expects verl's advantages without whitening; with it the penalty's part is only shifted."""
    rng = np.random.default_rng(0)
    rewards = jnp.array([[1.0, 0.0], [0.5, 1.0]])
    costs, values = jnp.array(rng.normal(0, 0.1, (2, 2, 2, 3)), jnp.float32)
    mask = jnp.ones((2, 2, 3), bool).at[0, 1, 2].set(False)
    plain = PPOOptions(gamma=0.9, gae_lambda=0.8, whiten=False)
    white = dataclasses.replace(plain, whiten=True)
    free, returns, _ = token_advantages(plain, rewards, None, values, mask)
    both, penalised, _ = token_advantages(plain, rewards, costs, values, mask)
    part = both - free
    np.testing.assert_allclose(penalised - returns, part, atol=1e-6)
    whitened, _, _ = token_advantages(white, rewards, None, values, mask)
    found, _, _ = token_advantages(white, rewards, costs, values, mask)
    expected = np.where(mask, part - part[mask].mean(), 0.0)
    np.testing.assert_allclose(found - whitened, expected, atol=1e-6)
    np.testing.assert_allclose(np.asarray(whitened)[np.asarray(mask)].std(ddof=1), 1, atol=1e-4)


def test_costs_move_a_flat_group_by_themselves_alone():
    """Outcomes are compared and divided by their deviation; costs are subtracted afterwards."""
    experience = _experience("grpo", jnp.array([[1.0] * 4, [0.0, 0, 0, 1], [1.0] * 4, [0.0] * 4]))
    costs = jnp.array([[0.2, 0, 0, 0], [0.2, 0, 0, 0], [0.0] * 4, [0.0] * 4])
    plain, priced = (
        sample_advantages(GRPOOptions(group=GROUP, kl_weight=0.0), given, None, None)[0]
        for given in (experience, dataclasses.replace(experience, costs=costs))
    )
    np.testing.assert_array_equal(plain[0], np.zeros(GROUP))
    centred = np.array([0.15, -0.05, -0.05, -0.05])
    for row in (0, 1):
        np.testing.assert_allclose(priced[row], plain[row] - centred, atol=1e-6)
    np.testing.assert_array_equal(priced[2:], plain[2:])
    np.testing.assert_allclose(net_rewards(dataclasses.replace(experience, costs=costs))[0, 0], 0.8)


def test_costs_of_a_trajectory_count_once():
    rewards = jnp.array([[1.0, 0, 0, 0]] * PROMPTS)
    experience = _experience("trajectories", rewards)
    costs = jnp.repeat(jnp.array([0.4, 0, 0, 0, 0, 0, 0, 0]), 2)[:, None]
    options = GRPOOptions(group=GROUP, kl_weight=0.0, advantage="dr_grpo")
    priced, _ = sample_advantages(options, experience.replace(costs=costs), None, None)
    np.testing.assert_allclose(priced[0], [0.45, -0.15, -0.15, -0.15], atol=1e-6)
