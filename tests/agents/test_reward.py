"""The reward and its parts against numbers worked out by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.agents.answer import Verdict
from memr1_jax.agents.manager import Report
from memr1_jax.agents.reward import OUTCOMES, RewardOptions, answer_reward, manager_reward
from memr1_jax.errors import UserError


def _verdict(labelled):
    nothing = jnp.zeros(len(labelled))
    return Verdict(nothing, nothing, nothing, jnp.array(labelled, jnp.float32))


def _report(**counts):
    rows = len(next(iter(counts.values())))
    zero = {field.name: jnp.zeros(rows) for field in dataclasses.fields(Report)}
    return Report(**zero | {name: jnp.array(count, jnp.float32) for name, count in counts.items()})


def _total(parts):
    return np.asarray(sum(parts.values()))


def test_the_reward_is_the_outcome_alone_unless_asked_otherwise():
    outcome = jnp.array([1.0, 0.25, 0.0, -3.5])
    parts = answer_reward(RewardOptions(), outcome, _verdict([1, 0, 1, 0]))
    np.testing.assert_array_equal(_total(parts), outcome)
    report = _report(invalid=[0, 1, 0, 1])
    parts = manager_reward(RewardOptions(), outcome, report, jnp.array([8, 8, 0, 3]), 8)
    np.testing.assert_array_equal(_total(parts), outcome)


def test_an_answer_earns_the_weighted_sum_and_no_size():
    reward = RewardOptions("token_f1", outcome_weight=2.0, format_weight=0.1, size_weight=5.0)
    parts = answer_reward(reward, jnp.array([0.5, 1.0, 0.0]), _verdict([1, 0, 1]))
    np.testing.assert_allclose(_total(parts), [1.1, 2.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(parts["reward_outcome"], [1.0, 2.0, 0.0])
    np.testing.assert_allclose(parts["reward_format"], [0.1, 0.0, 0.1])
    assert set(parts) == {"reward_outcome", "reward_format"}


def test_a_manager_earns_the_weighted_sum():
    reward = RewardOptions(outcome_weight=2.0, format_weight=0.1, size_weight=0.4, size_free=2)
    report = _report(invalid=[0, 1, 0], skipped=[0, 0, 1])
    parts = manager_reward(reward, jnp.array([0.5, 0.0, 1.0]), report, jnp.array([6, 2, 10]), 16)
    # 0.4 times (6 - 2) / 16, 0 / 16 and (10 - 2) / 16.
    np.testing.assert_allclose(parts["reward_size"], [-0.1, 0.0, -0.2], rtol=1e-6)
    np.testing.assert_allclose(parts["reward_format"], [0.1, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(_total(parts), [1.0, 0.0, 1.8], rtol=1e-6)


def test_memories_in_the_free_zone_cost_nothing():
    reward = RewardOptions(outcome_weight=0.0, size_weight=1.0, size_free=4)
    memories = jnp.array([0, 3, 4, 5, 8])
    parts = manager_reward(reward, jnp.zeros(5), _report(invalid=[0] * 5), memories, 8)
    np.testing.assert_allclose(_total(parts), [0.0, 0.0, 0.0, -0.125, -0.5])


def test_unread_and_skipped_output_is_no_form_and_other_faults_are():
    reward = RewardOptions(outcome_weight=0.0, format_weight=1.0)
    bad, good = dict.fromkeys(("invalid", "skipped", "salvaged"), 0.0), ("unknown", "refused")
    for name, earned in (bad | dict.fromkeys(good, 1.0)).items():
        parts = manager_reward(reward, jnp.zeros(1), _report(**{name: [1]}), jnp.zeros(1), 8)
        assert float(_total(parts)[0]) == earned, name


def test_an_unknown_outcome_is_refused_with_the_choices():
    with pytest.raises(UserError, match="There is no reward named 'bleu'; choose one of .*judge"):
        RewardOptions("bleu")
    assert [RewardOptions(name).outcome for name in OUTCOMES] == list(OUTCOMES)
