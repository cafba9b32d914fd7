import matplotlib.image
import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.run import plots


def _records(agent, steps, phase="train"):
    random = np.random.default_rng(0)
    return [
        {"step": step, "phase": phase, "agent": agent, "reward": float(random.random())}
        for step in steps
    ]


def _width(path):
    return matplotlib.image.imread(path).shape[1]


def test_moving_mean_looks_back():
    result = plots.moving_mean(np.array([1.0, 0.0, 2.0, 4.0, 0.0]), 3)
    np.testing.assert_allclose(result, [1.0, 0.5, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(plots.moving_mean(np.array([1.0, 5.0]), 1), [1.0, 5.0])


def test_one_panel_for_each_agent(tmp_path):
    manager, answer = _records("manager", range(30)), _records("answer", range(20))
    plots.reward_curve(tmp_path / "one.png", manager, "one")
    plots.reward_curve(tmp_path / "two.png", manager + answer, "two")
    assert _width(tmp_path / "two.png") == 2 * _width(tmp_path / "one.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_what_is_drawn():
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    records = _records("manager", [3, 1, 2]) + _records("manager", [2], phase="eval")
    plots._draw(panel, records, window=2)
    dots, mean, evaluation = panel.get_lines()
    np.testing.assert_array_equal(evaluation.get_xdata(), [2])
    np.testing.assert_array_equal(dots.get_xdata(), [1, 2, 3])
    raw = dots.get_ydata()
    np.testing.assert_allclose(mean.get_ydata(), [raw[0], raw[:2].mean(), raw[1:].mean()])
    assert panel.get_xlabel() == "training step"
    labels = [text.get_text() for text in panel.get_legend().get_texts()]
    assert labels == ["training step", "training, mean of 2 steps", "eval"]


def test_records_without_a_reward_are_ignored(tmp_path):
    records = _records("answer", [1]) + [
        {"step": 2, "phase": "train", "agent": "answer", "loss": 0.1},
        {"step": 3, "phase": "train", "agent": "answer", "reward": float("nan")},
    ]
    plots.reward_curve(tmp_path / "curve.png", records, "one step")
    assert (tmp_path / "curve.png").stat().st_size > 1000
    with pytest.raises(UserError, match="no reward to draw in .*none.png"):
        plots.reward_curve(tmp_path / "none.png", records[1:], "nothing")
    assert not (tmp_path / "none.png").exists()
