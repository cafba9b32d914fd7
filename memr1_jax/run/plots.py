"""Draws PNG files: reward curves, bars and lines with intervals; matplotlib is used here alone."""

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
    """Draws the reward over the training steps, one panel for each agent.

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
    agents = list(dict.fromkeys(record["agent"] for record in rewards))
    figure, panels = new_figure(len(agents), (5.5 * len(agents), 3.8), title, sharey=True)
    for panel, agent in zip(panels, agents, strict=True):
        _draw(panel, [record for record in rewards if record["agent"] == agent], window)
        panel.set_title(_TITLES.get(agent, agent), fontsize=11)
    lowest = min(record["reward"] for record in rewards)
    panels[0].set_ylim(bottom=min(0.0, 1.05 * lowest))
    panels[0].set_ylabel("mean reward per response (0 to 1)")
    write_bytes_atomic(path, png(figure))


def new_figure(panels: int, size: tuple[float, float], title: str = "", **options: Any):
    """Returns a figure of `size` inches and its panels, side by side.

    Args:
        panels: how many.
        size: width and height.
        title: a line above them.
        **options: of matplotlib's `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=11, wrap=True)
    found = figure.subplots(1, panels, squeeze=False, **options)[0]
    for panel in found:
        panel.grid(alpha=0.25)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, found


def png(figure) -> bytes:
    """Returns a figure as the content of a PNG file."""
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def draw_bars(
    panel, labels: Sequence[str], means: Sequence[float], errors: Any, heading: str
) -> None:
    """Draws a bar for every label, the first one on top.

    Args:
        panel: of `new_figure`.
        labels: names of the bars.
        means: their lengths.
        errors: half widths of intervals `[N]`, or what lies below and above `[2, N]`.
        heading: what is measured.
    """
    panel.barh(range(len(labels)), means, xerr=errors, color="C0", capsize=2)
    panel.set_yticks(range(len(labels)), labels)
    panel.set_ylim(len(labels) - 0.5, -0.5)
    panel.set_xlabel(heading)


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Averages each value and those before it, `window` in all; fewer at the beginning.

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
    # Below the panel, where it covers no data.
    panel.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, fontsize=9, frameon=False
    )


def _series(records: Sequence[Mapping[str, Any]], phase: str) -> tuple[np.ndarray, np.ndarray]:
    chosen = [(record["step"], record["reward"]) for record in records if record["phase"] == phase]
    pairs = np.array(sorted(chosen), dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
