"""The reward and its parts against numbers worked out by hand."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.agents.answer import Verdict
from memr1_jax.agents.manager import Report
from memr1_jax.agents.reward import (
    OUTCOMES,
    RewardOptions,
    answer_reward,
    manager_reward,
    no_report,
    outcome_of,
)
from memr1_jax.errors import UserError
from memr1_jax.text.normalize import words_of_text


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
    with pytest.raises(UserError, match="There is no reward named 'bleu'; choose one of .*judge,"):
        RewardOptions("bleu")
    assert [RewardOptions(name).outcome for name in OUTCOMES] == list(OUTCOMES)


def test_named_outcomes_are_those_of_the_verdict():
    gold, answer = (words_of_text(text, 8) for text in ("a green tea", "green tea, I think"))
    found = {
        name: float(outcome_of(RewardOptions(name), answer, gold, no_report())) for name in OUTCOMES
    }
    assert found == {"exact_match": 0, "token_f1": pytest.approx(2 / 3), "contains": 1, "judge": 0}


MODULE = """
import jax.numpy as jnp
from memr1_jax.text.match import contains

def brief(answer, gold, report):
    return contains(answer, gold) - 0.1 * answer.count - report.invalid

class Rewards:
    def __call__(self, answer, gold, report):
        return answer.count > 2

several = Rewards()
five = 5
def branches(answer, gold, report):
    return 1.0 if answer.count > 2 else 0.0
def row(answer, gold, report):
    return answer.hash[:, 0]
def nothing(answer, gold, report):
    pass
def two(answer, gold):
    return 1.0
def text(answer, gold, report):
    return "good"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Returns a module of the user's own, where the command runs."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    return name


def test_an_outcome_of_ones_own_is_imported_and_computed(module):
    reward = RewardOptions(f"{module}:brief", outcome_weight=2.0)
    gold, answer = words_of_text("green tea", 8), words_of_text("green tea, I think", 8)
    report = dataclasses.replace(no_report(), invalid=jnp.float32(1))
    earned = [
        float(jax.jit(outcome_of, static_argnums=0)(reward, answer, gold, told))
        for told in (no_report(), report)
    ]
    assert earned == pytest.approx([1 - 0.4, -0.4])
    assert reward.own and len(reward.digest()) == 32
    assert RewardOptions(f"{module}:brief", outcome_weight=2.0) == reward
    # Of a true or false, and of an object that is called:
    reward = RewardOptions(f"{module}:several")
    assert float(outcome_of(reward, answer, gold, report)) == 1


def test_an_outcome_is_given_as_a_function():
    def short(answer, gold, report):
        return 1.0 / (1 + answer.count)

    reward = RewardOptions(size_weight=0.5).with_function(short)
    assert reward.outcome.endswith("short") and reward.size_weight == 0.5
    assert float(outcome_of(reward, words_of_text("b c d", 8), None, None)) == 0.25
    # Other options change, and the function stays.
    assert dataclasses.replace(reward, size_weight=0.0).function is short
    assert dataclasses.replace(reward, outcome="contains").function is not short
    with pytest.raises(UserError, match="is no function"):
        RewardOptions().with_function(3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "cannot be imported .AttributeError"),
        ("five", "is no function but 5"),
        ("branches", "cannot be compiled .TracerBoolConversionError.*jnp.where"),
        ("row", "must return one number for one answer, but returns .*8"),
        ("nothing", "must return one number for one answer, but returns None"),
        ("two", "cannot be compiled .TypeError"),
        ("text", "one number|cannot be compiled"),
        ("", "cannot be imported"),
    ],
)
def test_what_is_no_outcome_is_told_in_a_sentence(module, name, message):
    with pytest.raises(UserError, match=message):
        RewardOptions(f"{module}:{name}")
    with pytest.raises(UserError, match="cannot be imported .ModuleNotFoundError"):
        RewardOptions(f"no_{module}:{name}")
