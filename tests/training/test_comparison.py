"""GRPO beside PPO: what is compared, what is reported, and that a second call repeats nothing."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.models.small_model import SMALL
from memr1_jax.training import experiment
from memr1_jax.training.comparison import ComparisonConfig, compare, run_options
from memr1_jax.training.comparison_report import draw, mean_interval, summarise, write_report

SHAPE = dataclasses.replace(
    SMALL, num_layers=1, model_width=32, num_heads=2, num_kv_heads=1, head_size=16, mlp_width=32
)
# Half the width of the 95 percent interval of the mean of 1, 2, 3: the tabulated t of two degrees
# of freedom over the root of three.
HALF = 4.302653 / 3**0.5


def test_the_interval_is_students():
    found = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert found["mean"] == 2.0
    assert found["half_width"] == pytest.approx(HALF, rel=1e-6)
    assert mean_interval(np.array([0.25])) == {"mean": 0.25, "half_width": None}


def test_the_summary_takes_fifths_of_the_steps():
    runs = np.stack([np.arange(10.0), np.arange(10.0) + 2.0, np.arange(10.0) * 2.0])
    found = summarise(runs)
    assert found["first_fifth"]["mean"] == pytest.approx((0.5 + 2.5 + 1.0) / 3)
    assert found["last_fifth"]["mean"] == pytest.approx((8.5 + 10.5 + 17.0) / 3)
    assert found["gain"]["mean"] == pytest.approx((8.0 + 8.0 + 16.0) / 3)
    assert summarise(np.array([[0.5], [1.0]]))["gain"] == {"mean": 0.0, "half_width": 0.0}


def test_the_report_holds_what_the_table_says(tmp_path, capsys):
    def run(rewards):
        return [{"reward": value, "seconds": 0.5} for value in rewards]

    runs = {
        "grpo": [run([0.0, 0.1, 1.0, 2.0, 1.0]), run([0.0] * 4 + [2.0]), run([0.0] * 4 + [3.0])],
        "ppo": [run([0.0, 0.2, 0.2, 0.2, 0.5])] * 3,
    }
    found = write_report(tmp_path, {"reward": "exact_match", "seeds": 3}, runs)
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert found["algorithms"]["ppo"]["rewards"] == [[0.0, 0.2, 0.2, 0.2, 0.5]] * 3
    assert found["algorithms"]["grpo"]["last_fifth"]["mean"] == 2.0
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[-2:] == [
        f"| GRPO | 0.000 ± 0.000 | 2.000 ± {HALF:.3f} | 2.000 ± {HALF:.3f} | 0.50 |",
        "| PPO | 0.000 ± 0.000 | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.50 |",
    ]
    assert f"2.000 ± {HALF:.3f}" in capsys.readouterr().out
    assert (tmp_path / "reward.png").read_bytes().startswith(b"\x89PNG")


def test_the_curves_are_another_picture_for_other_rewards():
    flat, steep = np.full((3, 20), 0.5), np.tile(np.linspace(0, 1, 20), (3, 1))
    assert draw({"grpo": flat, "ppo": flat}, "f1") != draw({"grpo": flat, "ppo": steep}, "f1")


def test_the_runs_differ_in_algorithm_rates_folder_and_seed_alone(tmp_path):
    options = ComparisonConfig()
    grpo, ppo = (
        dataclasses.asdict(run_options(options, tmp_path, name, seed))
        for name, seed in (("grpo", 0), ("ppo", 1))
    )
    differing = {name for name in grpo if grpo[name] != ppo[name]}
    allowed = {"algorithm", "learning_rate", "output", "seed"}
    assert {"algorithm", "output", "seed"} <= differing <= allowed
    assert (grpo["batch"], grpo["group"]) == (ppo["batch"], ppo["group"])


@pytest.mark.parametrize("name", ["seeds", "steps", "warm_steps"])
def test_what_leaves_nothing_to_compare_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=rf"--{name}=0 must be at least 1"):
        compare(ComparisonConfig(output=str(tmp_path), **{name: 0}))


@pytest.mark.slow
def test_a_second_call_repeats_nothing_and_a_lost_run_comes_out_the_same(tmp_path, monkeypatch):
    options = ComparisonConfig(
        output=str(tmp_path / "comparison"),
        **{"seeds": 2, "steps": 2, "batch": 2, "group": 2, "reward": "token_f1", "dialogues": 2},
        **{"warm_steps": 2, "warm_batch": 2, "warm_dialogues": 2},
    )
    begun = []

    class Noted(experiment.Experiment):
        def __init__(self, options):
            begun.append((options.algorithm, options.seed))
            super().__init__(options)

    monkeypatch.setattr(experiment, "Experiment", Noted)
    first = compare(options, SHAPE)
    runs = [("grpo", 0), ("grpo", 1), ("ppo", 0), ("ppo", 1)]
    assert begun == [("sft", 0), *runs]

    begun.clear()
    assert compare(options, SHAPE) == first
    assert begun == []

    shutil.rmtree(tmp_path / "comparison" / "ppo_1")
    again = compare(options, SHAPE)
    assert begun == [("ppo", 1)]
    rewards = [found["algorithms"]["ppo"]["rewards"] for found in (first, again)]
    assert rewards[0] == rewards[1]

    # A longer comparison goes on with the runs that there are.
    begun.clear()
    longer = compare(dataclasses.replace(options, steps=3), SHAPE)
    assert begun == runs
    assert [run[:2] for run in longer["algorithms"]["ppo"]["rewards"]] == rewards[1]

    with pytest.raises(UserError, match="learning_rate"):
        compare(dataclasses.replace(options, grpo_learning_rate=0.5), SHAPE)
