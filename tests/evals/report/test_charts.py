"""Checks where the lines of a chart fall, and which charts a run has."""

import json
import math

import pytest

from memr1_jax.evals.report.charts import Chart, Line, draw, nice_ticks
from memr1_jax.evals.report.run_charts import agent_charts


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 1, [0, 0.5, 1]),
        (0, 4, [0, 1, 2, 3, 4]),
        (0.02, 0.07, [0.02, 0.04, 0.06, 0.08]),
        (-3, 9, [-5, 0, 5, 10]),
        (0, 0, [0, 0.5, 1]),
        (2e-13, 3e-13, [2e-13, 2.5e-13, 3e-13]),
        (-0.1, -0.1 + 1e-17, [-0.1, -0.05, 0]),
    ],
)
def test_ticks(low, high, expected):
    ticks = nice_ticks(low, high)
    assert ticks == pytest.approx(expected, rel=1e-6, abs=1e-20)


def test_a_line():
    drawing = draw(Chart("Reward", "points", (Line("step", [1, 2, 3], [0.0, 1.0, 0.5]),)))
    (mark,) = drawing.marks
    # From 46 to 410 across, from 184 up to 10.
    assert (mark.shape, mark.path) == ("line", "M46.0 184.0L228.0 10.0L410.0 97.0")
    assert drawing.rows == ((184.0, "0"), (97.0, "0.5"), (10.0, "1"))
    assert [label for _, label in drawing.columns] == ["1", "2", "3"]
    data = json.loads(drawing.data)
    assert data["lines"] == [{"name": "step", "steps": [1, 2, 3], "values": [0.0, 1.0, 0.5]}]
    assert data["across"] == [46, 410, 1, 3]
    assert "Reward in points, steps 1 to 3" in drawing.description
    assert "step from 0 to 0.5" in drawing.description


def test_one_step_is_a_dot_in_the_middle():
    (mark,) = draw(Chart("t", "u", (Line("step", [5], [2.0]),))).marks
    assert (mark.shape, mark.path) == ("dots", "M228.0 10.0h0")


def test_areas_lie_on_each_other():
    lines = (Line("a", [0, 10], [25.0, 50.0], "add"), Line("b", [0, 10], [75.0, 50.0], "none"))
    below, above = draw(Chart("t", "%", lines, stacked=True)).marks
    assert below.path == "M46.0 140.5L410.0 97.0L410.0 184.0L46.0 184.0Z"
    assert above.path == "M46.0 10.0L410.0 10.0L410.0 97.0L46.0 140.5Z"
    assert (below.shape, below.tone) == ("area", "add")


def test_long_lines_are_drawn_as_means():
    steps = list(range(1, 901))
    (line,) = json.loads(
        draw(Chart("t", "u", (Line("n", steps, [float(s) for s in steps]),))).data
    )["lines"]
    assert len(line["steps"]) == 300
    assert (line["steps"][0], line["values"][0]) == (3, 2.0)
    assert (line["steps"][-1], line["values"][-1]) == (900, 899.0)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="'t' has nothing to draw"):
        draw(Chart("t", "u", ()))


def _records(steps):
    return [
        {
            **{"step": step, "phase": "train", "agent": "manager", "reward": step / steps},
            **{"add": 1.0, "update": 0.5, "delete": 0.0, "none": 0.5, "invalid": 0.25},
            **{"response_length": 12.0, "truncated": 0.1, "labelled": 0.75, "loss": -0.1},
        }
        for step in range(1, steps + 1)
    ]


def test_charts_of_a_manager():
    charts = {chart.title: chart for chart in agent_charts("manager", _records(20)[::-1])}
    assert list(charts) == [
        *("Reward", "Loss", "Response length", "Mix of operations", "Faulty responses"),
    ]
    dots, mean = charts["Reward"].lines
    assert dots.dots and dots.steps == list(range(1, 21))
    assert mean.name == "mean of 3 steps" and mean.values[-1] == pytest.approx(0.95)
    mix = charts["Mix of operations"]
    assert mix.stacked
    assert {line.name: line.values[0] for line in mix.lines} == {
        **{"ADD": 50.0, "UPDATE": 25.0, "DELETE": 0.0, "NOOP": 25.0},
    }
    faults = {line.name: line.values[0] for line in charts["Faulty responses"].lines}
    assert faults == pytest.approx({"not readable": 25.0, "cut off": 10.0})


def test_charts_of_an_answer_agent_and_of_gaps():
    records = [
        {"step": 1, "reward": math.nan, "labelled": 0.75, "truncated": 0.0},
        {"step": 2, "kl": 0.5, "labelled": 1.0, "truncated": 0.0},
    ]
    charts = {chart.title: chart for chart in agent_charts("answer", records)}
    assert list(charts) == ["KL from the reference", "Faulty responses"]
    assert charts["KL from the reference"].lines[0].steps == [2]
    missing, cut = charts["Faulty responses"].lines
    assert missing.values == [25.0, 0.0] and cut.values == [0.0, 0.0]
    assert agent_charts("answer", []) == []


def test_rewards_on_held_out_dialogues_are_a_line_of_their_own():
    held_out = [{"step": 0, "reward": 0.25}, {"step": 20, "reward": 0.5}]
    reward = agent_charts("manager", _records(20), held_out)[0]
    assert [line.name for line in reward.lines] == ["each step", "mean of 3 steps", "validation"]
    assert (reward.lines[-1].steps, reward.lines[-1].values) == ([0, 20], [0.25, 0.5])
