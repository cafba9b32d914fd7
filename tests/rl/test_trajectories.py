"""Steps of trajectories as rows: one score a trajectory, and its advantage at every step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, random_params

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.rl.advantages import group_advantages
from memr1_jax.rl.imitation import ImitationOptions, kept_samples
from memr1_jax.rl.policy import group_penalties
from memr1_jax.rl.policy_options import PolicyOptions
from memr1_jax.rl.trajectories import Trajectories, by_row, by_step, returns
from memr1_jax.rl.update import Experience, GRPOOptions, create_state, update

# Two roots, two trajectories of three steps each; the second root's episode has one step alone.
LAYOUT = Trajectories(group=2, steps=3)
VALID = np.array([[[1, 1, 1], [1, 1, 1]], [[1, 0, 0], [1, 0, 0]]], bool).reshape(-1)
OUTCOMES = np.array([[1.0, 0.0], [0.25, 0.75]], np.float32)
RESPONSE = 4


def _experience(**changes):
    rng = np.random.default_rng(0)
    rows = VALID.size
    rewards = np.where(VALID, np.repeat(OUTCOMES.reshape(-1), 3), 0.0)[:, None]
    fields = {
        "prompt": Block(jnp.zeros((rows, 2), jnp.int32), jnp.full(rows, 2)),
        "response": Block(
            jnp.array(rng.integers(0, 48, (rows, 1, RESPONSE)), jnp.int32),
            jnp.array(rng.integers(1, RESPONSE + 1, (rows, 1)), jnp.int32),
        ),
        "logprobs": jnp.array(rng.normal(-3, 0.5, (rows, 1, RESPONSE)), jnp.float32),
        "rewards": jnp.array(rewards, jnp.float32),
        "stopped": jnp.ones((rows, 1), bool),
        "valid": jnp.array(VALID),
        "shown": jnp.zeros(rows, jnp.int32),
        "trajectories": LAYOUT,
    }
    return Experience(**fields | changes)


def test_rows_are_steps_of_one_trajectory_after_the_other():
    rows = jnp.arange(12)[:, None]
    steps = by_step(LAYOUT, rows)
    assert steps[0].tolist() == [[0, 1, 2], [3, 4, 5]] and steps[1, 1].tolist() == [9, 10, 11]
    assert by_row(LAYOUT, jnp.array([[1, 2], [3, 4]]))[:, 0].tolist() == [
        *[1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    ]
    group = jnp.array([[1, 2], [3, 4]])
    assert by_step(None, group).shape == (2, 2, 1) and (by_row(None, group) == group).all()


def test_a_trajectory_is_rewarded_once():
    experience = _experience()
    rewards, valid = returns(LAYOUT, experience.rewards, experience.valid)
    np.testing.assert_array_equal(rewards, OUTCOMES)
    assert valid.tolist() == [True, True]
    # Steps that an episode does not have may stand anywhere.
    rewards, valid = returns(LAYOUT, jnp.array([[0.0], [5], [5], [0], [7], [0]] * 2), VALID[::-1])
    assert valid.tolist() == [True, True] and rewards[0].tolist() == [5.0, 0.0]
    nothing, valid = returns(LAYOUT, experience.rewards, jnp.zeros(12, bool))
    assert not nothing.any() and not valid.any()


def test_mean_and_deviation_are_those_of_trajectories_not_of_steps():
    experience = _experience()
    rewards, _ = returns(LAYOUT, experience.rewards, experience.valid)
    advantages = by_row(LAYOUT, group_advantages(rewards))[:, 0]
    # (1, 0): mean 0.5, deviation sqrt(0.5); (0.25, 0.75): mean 0.5, deviation sqrt(0.125).
    one = np.sqrt(0.5)
    np.testing.assert_allclose(advantages, np.repeat([one, -one, -one, one], 3), rtol=1e-5)


def test_a_penalty_in_the_reward_adds_up_over_the_steps():
    experience = _experience()
    old = experience.logprobs + 3.0  # of the trainer; the sampler's do not matter
    reference = old - 0.5  # each token costs 0.1 x 0.5
    options = PolicyOptions(kl_weight=0.1, kl_placement="reward")
    penalties, metrics = group_penalties(options, experience, old, reference)
    tokens = np.where(VALID, np.asarray(experience.response.length)[:, 0], 0)
    tokens = tokens.reshape(2, 2, 3).sum(-1)
    np.testing.assert_allclose(penalties, 0.05 * tokens, rtol=1e-5)
    np.testing.assert_allclose(float(metrics["kl"].value()), 0.5, rtol=1e-5)


def test_the_best_trajectory_is_kept_whole():
    kept = kept_samples(ImitationOptions(imitated="best"), _experience())[:, 0]
    assert kept.tolist() == [*[True] * 3, *[False] * 3, *[False] * 3, True, False, False]


@pytest.fixture(scope="module")
def step():
    small = dataclasses.replace(CONFIG, vocab_size=48)
    decoder, optimizer = Decoder(small, remat="none"), optax.sgd(1.0)
    params = jax.device_put(random_params(small))
    instruction = Block(jnp.array([3, 1, 4]), jnp.int32(3))

    @jax.jit
    def step(experience):
        algorithm = GRPOOptions(group=2, kl_weight=0.0, logit_chunk=7)
        state = create_state(params, optimizer, 0)
        after, metrics = update(algorithm, decoder, optimizer, state, None, instruction, experience)
        return jax.tree.map(jnp.subtract, after.params, params), metrics

    return step


@pytest.mark.slow
def test_trajectories_of_one_step_are_plain_groups(step):
    """Compares each sample's row with a copy of its prompt with one row for the group."""
    plain = _experience(trajectories=None)
    half = jax.tree.map(lambda x: x[:4], plain)  # one step each
    rewards = jnp.array([[1.0], [0.5], [0.0], [0.75]])
    half = half.replace(rewards=rewards, valid=jnp.ones(4, bool))
    single = half.replace(trajectories=Trajectories(group=2, steps=1))
    pair = lambda x: x.reshape(2, 2, *x.shape[2:])  # noqa: E731
    grouped = Experience(
        prompt=jax.tree.map(lambda x: x[::2], half.prompt),
        response=jax.tree.map(pair, half.response),
        logprobs=pair(half.logprobs),
        rewards=pair(rewards),
        stopped=pair(half.stopped),
        valid=jnp.ones(2, bool),
        shown=half.shown[:2],
    )
    (first, metrics), (second, expected) = step(single), step(grouped)
    for left, right in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        scale = np.abs(right).max()
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4 * scale)
    assert metrics.keys() == expected.keys()
    for name in metrics:
        np.testing.assert_allclose(
            metrics[name].value(), expected[name].value(), rtol=1e-4, atol=1e-6, err_msg=name
        )
