"""The compiled step on episodes, what it costs, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import make_tiny, make_training, options

from memr1_jax.errors import UserError
from memr1_jax.planner import estimates
from memr1_jax.planner.abstract import abstract_step
from memr1_jax.training.checks import check_options
from memr1_jax.training.loop import metric_values


@pytest.mark.slow
@pytest.mark.parametrize("horizon", ["terminal", "branches"])
def test_a_step_on_episodes_learns_from_those_that_count(horizon):
    training = make_training("manager", horizon)
    state, metrics, rollout = training.run(training.state(), [0, 1])
    values = metric_values(metrics)
    assert values["sampler_gap"] < 1e-4 and abs(values["kl"]) < 1e-4
    assert all(np.isfinite(value) for value in values.values())
    moved = jax.tree.map(
        lambda new, old: bool(jnp.any(new != old)), state.params, make_tiny().model.params
    )
    assert all(jax.tree.leaves(moved))
    # An episode that is padding leaves the other as it was.
    _, padded, partial = training.run(training.state(), [0, 1], [True, False])
    half = len(rollout.valid) // 2
    np.testing.assert_array_equal(partial.samples.tokens[:half], rollout.samples.tokens[:half])
    np.testing.assert_array_equal(partial.rewards[:half], rollout.rewards[:half])
    assert not partial.valid[half:].any() and not partial.samples.length[half:].any()
    rewards = np.asarray(partial.rewards)[np.asarray(partial.valid)]
    assert metric_values(padded)["reward"] == pytest.approx(rewards.mean(), abs=1e-6)


def test_what_makes_no_sense_with_episodes_is_refused():
    for changes, message in (
        ({"horizon": "terminal", "algorithm": "ppo"}, "Use --algorithm=grpo, or --horizon=branch"),
        ({"horizon": "branches", "algorithm": "sft"}, "--algorithm=sft learns from demonstrations"),
        ({"horizon": "branches", "local_weight": 0.0, "final_weight": 0.0}, "one of them above 0"),
        ({"horizon": "branches", "local_weight": -1.0}, "must be 0 or more"),
        ({"horizon": "terminal", "episode_turns": -1}, "--episode_turns=-1 must be 0 or more"),
        ({"consult_batch": -1}, "--consult_batch=-1 must be 0 or more"),
    ):
        with pytest.raises(UserError, match=message):
            check_options(options(**changes))
    check_options(options(horizon="branches", algorithm="ppo"))
    # Parts divide the rows of an update, which are turns.
    several = {"batch": 1, "micro_batches": 4, "agent": "manager"}
    check_options(options(horizon="branches", episode_turns=8, **several))
    with pytest.raises(UserError, match="does not divide"):
        check_options(options(horizon="branches", episode_turns=6, **several))
    with pytest.raises(UserError, match="does not divide"):
        check_options(options(**several))


@pytest.mark.parametrize(
    ("horizon", "sampled", "trained", "asked", "times"),
    [
        ("terminal", (4, 1), (20, 1), 12, 1),  # 2 x 2 trajectories of 5 turns, 3 questions
        ("branches", (2, 2), (10, 2), 20, 5),  # two more questions at every turn
    ],
)
def test_the_cost_of_a_step_counts_turns(horizon, sampled, trained, asked, times):
    given = options(horizon=horizon, episode_turns=5, final_questions=3, batch=2, group=2)
    made = abstract_step(given, "manager")

    def rows(chain):
        return chain.lengths.prompts, chain.lengths.group

    assert rows(estimates.sampled_chain(made, given)) == sampled
    assert rows(estimates.trained_chain(made, given)) == trained
    assert rows(estimates.asked_chain(made, given)) == (asked, 1)
    work = estimates.step_work(made, given, estimates.Layout())
    alone = estimates.roofline.decode_work(
        made.policy.decoder.config,
        estimates.asked_chain(made, given).lengths,
        estimates.Layout(),
    )
    assert work["answer decode"].flops == pytest.approx(times * alone.flops)
