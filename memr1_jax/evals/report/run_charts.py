"""Draws the metrics of a run that say most."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from memr1_jax.evals.report.charts import Chart, Line
from memr1_jax.run.plots import moving_mean
from memr1_jax.text.events import REPORTED

_SMOOTH = (  # metric, title, unit, whether 0 is kept in the picture
    ("reward", "Reward", "mean per response", True),
    ("loss", "Loss", "as minimised", False),
    ("kl", "KL from the reference", "nats per token", True),
    ("entropy", "Entropy of the policy", "nats per token", True),
    ("response_length", "Response length", "tokens", True),
    ("bank_size", "Size of the bank", "memories", True),
    ("sampler_gap", "Sampler–trainer gap", "nats per token", True),
)
_FAULTS = {  # by agent: metric, name, tone, whether the metric counts the sound ones
    "manager": (
        ("invalid", "not readable", "first", False),
        ("truncated", "cut off", "second", False),
    ),
    "answer": (
        ("labelled", "answer not marked as asked for", "first", True),
        ("truncated", "cut off", "second", False),
    ),
}


def agent_charts(
    agent: str,
    records: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]] = (),
) -> list[Chart]:
    """Makes the charts of one agent's training steps; a metric that was never logged has none.

    Args:
      agent: "manager" or "answer".
      records: lines of the metrics of this agent in training, see `metrics_log.read_metrics`.
      validation: those of the phase "validation": a line in the chart of the reward.
    """
    records = sorted(records, key=lambda record: record["step"])
    charts = []
    for name, title, unit, from_zero in _SMOOTH:
        steps, values = _series(records, name)
        if steps:
            lines = _with_mean(steps, values)
            held_out, rewards = _series(validation, name)
            if held_out:
                lines += (Line("validation", held_out, rewards),)
            charts.append(Chart(title, unit, lines, from_zero=from_zero))
    # In addition to the length of the responses: what was in them.
    place = next((i + 1 for i, chart in enumerate(charts) if chart.unit == "tokens"), len(charts))
    charts[place:place] = filter(None, (_operation_mix(records), _faults(agent, records)))
    return charts


def _with_mean(steps, values):
    window = max(3, len(values) // 10)
    if len(values) < 2 * window:
        return (Line("each step", steps, values),)
    mean = [float(value) for value in moving_mean(values, window)]
    return (
        Line("each step", steps, values, dots=True),
        Line(f"mean of {window} steps", steps, mean),
    )


def _operation_mix(records):
    """Returns the shares of the operations; steps without any operation are left out."""
    steps, shares = [], []
    for record in records:
        counts = [record.get(event.key, math.nan) for event in REPORTED]
        total = sum(counts)
        if math.isfinite(total) and total > 0:
            steps.append(record["step"])
            shares.append([100 * count / total for count in counts])
    if not steps:
        return None
    lines = tuple(
        Line(event.label, steps, list(values), tone=event.key)
        for event, values in zip(REPORTED, zip(*shares, strict=True), strict=True)
    )
    return Chart("Mix of operations", "% of operations", lines, stacked=True)


def _faults(agent, records):
    lines = []
    for name, label, tone, sound in _FAULTS.get(agent, ()):
        steps, values = _series(records, name)
        if steps:
            shares = [100 * (1 - value if sound else value) for value in values]
            lines.append(Line(label, steps, shares, tone))
    return Chart("Faulty responses", "% of responses", tuple(lines)) if lines else None


def _series(records, name):
    pairs = [(r["step"], r[name]) for r in records if math.isfinite(r.get(name, math.nan))]
    return [step for step, _ in pairs], [value for _, value in pairs]
