"""Resampling: prompts that are kept, prompts that are drawn again, and resuming."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import make_training

from memr1_jax.agents.resampling import drawn_rows
from memr1_jax.rl.advantages import score_variance
from memr1_jax.rl.update import update, weigh_prompts
from memr1_jax.run.checkpoints import Checkpoints
from memr1_jax.run.metrics_log import MetricsLog, read_metrics
from memr1_jax.training.loop import Stage, resume, train
from memr1_jax.training.step import compile_step


def test_rows_are_drawn_by_their_odds_without_repeats():
    odds = np.where(np.arange(40) < 20, 1.0, 0.05)
    drawn = np.stack([drawn_rows(3, step, odds, 8, "manager") for step in range(400)])
    assert all(len(set(row)) == 8 for row in drawn) and drawn.dtype == np.int32
    assert 0.03 < (drawn >= 20).mean() < 0.12
    np.testing.assert_array_equal(drawn[7], drawn_rows(3, 7, odds, 8, "manager"))
    assert not np.array_equal(drawn[7], drawn_rows(4, 7, odds, 8, "manager"))
    # More than there are: each as often as another.
    counts = np.bincount(drawn_rows(0, 0, np.ones(3), 8))
    assert sorted(counts) == [2, 3, 3]


def test_variance_is_exactly_0_where_nothing_differs():
    scores = jnp.array([[0.1] * 3, [0.0, 0.3, 0.6], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(score_variance(scores)[1:], [0.06, 2 / 9], rtol=1e-5)
    assert score_variance(scores)[0] == 0
    weights = jnp.array([[3.0, 0, 0], [0.0, 1, 1], [1.0, 1, 1]])
    np.testing.assert_allclose(score_variance(scores, weights)[:2], [0, 0.0225], rtol=1e-5)


@functools.cache
def _resampling():
    training = make_training("answer")
    algorithm = dataclasses.replace(training.algorithm, oversample=2, flat_odds=0.25)
    step = compile_step(update, training.policy, algorithm, training.optimizer)
    return dataclasses.replace(training, algorithm=algorithm, step=step)


def _state(training):
    return weigh_prompts(training.state(), training.data.rows)


@pytest.mark.slow
def test_the_most_informative_groups_are_learned_from():
    training = _resampling()
    rows = [0, 1, 2, 3]
    after, metrics, rollout = training.run(_state(training), rows)
    plain = make_training("answer")
    parts = []
    key = plain.state().rollout_key()
    for place in range(2):  # the same in parts, by the plain rollout
        batch = training.data.select(jnp.array(rows[2 * place : 2 * place + 2]), jnp.ones(2, bool))
        parts.append(_roll(training.state().params, batch, jax.random.fold_in(key, place)))
    rewards = np.concatenate([np.asarray(part.rewards) for part in parts])
    tokens = np.concatenate([np.asarray(part.samples.tokens) for part in parts])
    order = np.argsort(-rewards.var(axis=1), kind="stable")[:2]
    np.testing.assert_array_equal(rollout.rewards, rewards[order])
    np.testing.assert_array_equal(rollout.samples.tokens, tokens[order])
    assert float(metrics["reward_of_all"].value()) == pytest.approx(rewards.mean(), abs=1e-6)
    flat = rewards.max(1) == rewards.min(1)
    np.testing.assert_allclose(np.asarray(after.odds)[rows], np.where(flat, 0.25, 1.0))
    assert (np.asarray(after.odds)[4:] == 1).all()


@jax.jit
def _roll(params, batch, key):
    from memr1_jax.models.sampler import Sampling

    training = _resampling()
    frozen, tools, _ = training.arguments
    options = key, Sampling.create(training.algorithm.temperature)
    return training.policy.rollout(
        params, frozen, tools, batch, *options, group=training.algorithm.group
    )


def test_a_resumed_run_draws_what_the_whole_one_drew(tmp_path):
    training = _resampling()

    def run(folder, steps, state):
        stage = Stage("answer", steps, 2, 0, 1, 9, {}, oversample=2)
        folder.mkdir(exist_ok=True)
        with MetricsLog(folder) as log, Checkpoints(folder / "checkpoints") as checkpoints:
            state = resume(checkpoints, stage, state)
            log.rewind("answer", int(state.step))
            options = {"folder": folder, "checkpoints": checkpoints, "log": log}
            rows, describe = training.data.rows, lambda rollout: []
            state = train(
                *(stage, training.step, state, training.arguments, rows),
                describe=describe,
                **options,
            )
        return state, [record["reward_of_all"] for record in read_metrics(folder / "metrics.jsonl")]

    whole, rewards = run(tmp_path / "whole", 3, _state(training))
    run(tmp_path / "parts", 2, _state(training))
    resumed, again = run(tmp_path / "parts", 3, _state(training))
    np.testing.assert_array_equal(resumed.odds, whole.odds)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert again == rewards and (np.asarray(whole.odds) < 1).any()
