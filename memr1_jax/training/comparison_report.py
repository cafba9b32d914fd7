"""What a comparison of algorithms found, as a table, curves and figures.

Axis letters: S seeds, T steps.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memr1_jax.training.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from memr1_jax.training.plots import moving_mean
from memr1_jax.training.progress import table

_COLUMNS = ("algorithm", "reward, first fifth", "reward, last fifth", "gain", "seconds a step")


def write_report(
    folder: Path,
    options: Mapping[str, Any],
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
) -> dict[str, Any]:
    """Prints the table; writes `results.md`, `reward.png` and, last, `results.json`.

    Args:
      folder: where to.
      options: of the comparison, to be kept with its results.
      runs: for each algorithm the metrics of every seed's steps.

    Returns:
      What `results.json` holds: options, and by algorithm the summary and the rewards `[S, T]`.
    """
    rewards = {name: _column(records, "reward") for name, records in runs.items()}
    results = {
        name: summarise(values)
        | {
            "seconds_per_step": float(np.median(_column(runs[name], "seconds"))),
            "rewards": values.tolist(),
        }
        for name, values in rewards.items()
    }
    seeds = len(next(iter(rewards.values())))
    title = f"Mean and 95 percent interval over {seeds} seeds ({options['reward']})"
    rows = [
        [
            name.upper(),
            *(_interval(found[part]) for part in ("first_fifth", "last_fifth", "gain")),
            f"{found['seconds_per_step']:.2f}",
        ]
        for name, found in results.items()
    ]
    table(title, _COLUMNS, rows)
    lines = [_COLUMNS, ["---", *["---:"] * (len(_COLUMNS) - 1)], *rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    write_text_atomic(folder / "results.md", f"{title}\n\n{text}")
    write_bytes_atomic(folder / "reward.png", draw(rewards, options["reward"]))
    found = {"options": dict(options), "algorithms": results}
    write_json_atomic(folder / "results.json", found)
    print(f"Everything is in {folder}")
    return found


def summarise(rewards: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Means over seeds of the reward in the first and the last fifth of the steps, and the gain.

    Args:
      rewards: `[S, T]`.

    Returns:
      For each of the three `mean` and `half_width`, see `mean_interval`.
    """
    few = max(1, rewards.shape[1] // 5)
    first, last = rewards[:, :few].mean(axis=1), rewards[:, -few:].mean(axis=1)
    return {
        "first_fifth": mean_interval(first),
        "last_fifth": mean_interval(last),
        "gain": mean_interval(last - first),
    }


def mean_interval(values: np.ndarray) -> dict[str, float | None]:
    """The mean of `values` `[S]` and half the width of its 95 percent interval by Student's t.

    A single value has no interval: None.
    """
    from scipy.stats import t

    mean, half = float(np.mean(values)), None
    if len(values) > 1:
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        half = float(t.ppf(0.975, len(values) - 1) * error)
    return {"mean": mean, "half_width": half}


def draw(rewards: Mapping[str, np.ndarray], reward: str) -> bytes:
    """The curves as a PNG: the mean over seeds of moving means, and from the lowest to the highest.

    Args:
      rewards: `[S, T]` for each algorithm.
      reward: its name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for name, values in rewards.items():
        seeds, steps = values.shape
        window = max(1, steps // 10)
        smooth = np.stack([moving_mean(run, window) for run in values])
        place = np.arange(1, steps + 1)
        (line,) = panel.plot(place, smooth.mean(axis=0), linewidth=2, label=name.upper())
        lowest, highest = smooth.min(axis=0), smooth.max(axis=0)
        panel.fill_between(place, lowest, highest, color=line.get_color(), alpha=0.2, linewidth=0)
    panel.set_title(f"Mean of {window} steps; lines: mean of {seeds} seeds, bands: all of them")
    panel.set_xlabel("training step")
    panel.set_ylabel(f"mean reward of an answer ({reward})")
    panel.set_ylim(bottom=0.0)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _column(records: Sequence[Sequence[Mapping[str, Any]]], name: str) -> np.ndarray:
    """One metric `[S, T]` of all runs of an algorithm."""
    return np.array([[step[name] for step in run] for run in records])


def _interval(found: Mapping[str, float | None]) -> str:
    mean, half = found["mean"], found["half_width"]
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"
