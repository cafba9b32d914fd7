"""Draws the rows of a table: bars with intervals, and accuracy against tokens."""

import os
from collections.abc import Sequence
from pathlib import Path

from memr1_jax.bench.scoring import headline
from memr1_jax.bench.tables.table_files import TableRow, metrics_of
from memr1_jax.run.files import write_bytes_atomic
from memr1_jax.run.plots import draw_bars, new_figure, png


def write_plots(folder: str | os.PathLike, title: str, rows: Sequence[TableRow]) -> None:
    """Writes bars.png and tokens.png of the rows that ran; nothing where none did."""
    done = [row for row in rows if row.row is not None and row.overall["metrics"]]
    if not done:
        return
    metric = headline(metrics_of(done))
    done = [row for row in done if metric in row.overall["metrics"]]
    for name, draw in (("bars.png", _bars), ("tokens.png", _against_tokens)):
        write_bytes_atomic(Path(folder) / name, png(draw(title, metric, done)))


def points(metric: str, rows: Sequence[TableRow]) -> list[tuple[float, float, float]]:
    """Returns a metric's mean and interval by row, in percent; a missing one has no width."""
    found = []
    for row in rows:
        entry = row.overall["metrics"][metric]
        low, high = entry["by_question"]
        bounds = (entry["mean"] if bound is None else bound for bound in (low, high))
        found.append(tuple(100 * value for value in (entry["mean"], *bounds)))
    return found


def _bars(title, metric, rows):
    figure, (panel,) = new_figure(1, (7.0, 0.9 + 0.34 * len(rows)), title)
    found = points(metric, rows)
    labels = [f"{row.name} (n = {row.overall['count']})" for row in rows]
    heading = f"{metric} (percent, 95 % interval over questions)"
    draw_bars(panel, labels, [mean for mean, _, _ in found], _errors(found), heading)
    return figure


def _against_tokens(title, metric, rows):
    figure, (panel,) = new_figure(1, (7.0, 4.5), title)
    found = points(metric, rows)
    tokens = [max(row.tokens_per_question, 1) for row in rows]
    means = [mean for mean, _, _ in found]
    panel.errorbar(tokens, means, yerr=_errors(found), fmt="o", capsize=2, elinewidth=0.8)
    for row, x, y in zip(rows, tokens, means, strict=True):
        panel.annotate(row.name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    panel.set_xscale("log")
    panel.set_xlabel("prompt and generated tokens for each question, reading included")
    panel.set_ylabel(f"{metric} (percent)")
    return figure


def _errors(found):
    below = [max(mean - low, 0.0) for mean, low, _ in found]
    above = [max(high - mean, 0.0) for mean, _, high in found]
    return [below, above]
