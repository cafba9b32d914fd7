"""Curves of a run as PNG files."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.run.files import write_bytes_atomic

_TITLES = {"manager": "Memory Manager", "answer": "Answer Agent"}


def reward_curve(
    path: str | os.PathLike, records: Sequence[Mapping[str, Any]], title: str, window: int = 0
) -> None:
    """Draw the reward over the training steps, one panel for each agent.

    Training rewards are faint dots with their moving mean as a line; rewards of other phases, such
    as "eval", are lines with markers.

    Args:
        path: the PNG file, written whole or not at all.
        records: as `metrics_log.read_metrics` returns them; those without a `reward` are ignored.
        title: a line above the panels.
        window: steps in the moving mean; 0 takes a tenth of the run, at least 3.

    Raises:
        UserError: no record holds a reward.
    """
    rewards = [record for record in records if math.isfinite(record.get("reward", math.nan))]
    if not rewards:
        raise UserError(
            f"There is no reward to draw in {path}: the metrics hold none. Train for at least one"
            " step first."
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    agents = list(dict.fromkeys(record["agent"] for record in rewards))
    figure = Figure(figsize=(5.5 * len(agents), 3.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    panels = figure.subplots(1, len(agents), sharey=True, squeeze=False)[0]
    for panel, agent in zip(panels, agents, strict=True):
        _draw(panel, [record for record in rewards if record["agent"] == agent], window)
        panel.set_title(_TITLES.get(agent, agent), fontsize=11)
    lowest = min(record["reward"] for record in rewards)
    panels[0].set_ylim(bottom=min(0.0, 1.05 * lowest))
    panels[0].set_ylabel("mean reward per response (0 to 1)")
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_bytes_atomic(path, image.getvalue())


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and those before it, `window` in all; fewer at the beginning.

    Args:
        values: [T].
        window: at least 1.

    Returns:
        [T] float64.
    """
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (sums[last] - sums[first]) / (last - first)


def _draw(panel, records: Sequence[Mapping[str, Any]], window: int) -> None:
    from matplotlib.ticker import MaxNLocator

    steps, values = _series(records, "train")
    if len(steps):
        window = window or max(3, len(steps) // 10)
        panel.plot(
            steps, values, ".", color="C0", alpha=0.3, markeredgewidth=0, label="training step"
        )
        label = f"training, mean of {window} steps"
        panel.plot(steps, moving_mean(values, window), color="C0", linewidth=2, label=label)
    for index, phase in enumerate(sorted({record["phase"] for record in records} - {"train"})):
        steps, values = _series(records, phase)
        panel.plot(steps, values, "o-", color=f"C{index + 1}", markersize=4, label=phase)
    panel.set_xlabel("training step")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    # Below the panel, where it covers no data.
    panel.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, fontsize=9, frameon=False
    )


def _series(records: Sequence[Mapping[str, Any]], phase: str) -> tuple[np.ndarray, np.ndarray]:
    chosen = [(record["step"], record["reward"]) for record in records if record["phase"] == phase]
    pairs = np.array(sorted(chosen), dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
