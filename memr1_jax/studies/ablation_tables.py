"""Shows the ablations as tables, pictures and figures.

Axis letters: S seeds.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memr1_jax.bench.paper import paper_markdown
from memr1_jax.options import flag_values
from memr1_jax.run.plots import draw_bars, new_figure, png
from memr1_jax.run.seeds import interval_text, mean_interval
from memr1_jax.studies.ablation_cells import Cell, Row, cells_of
from memr1_jax.studies.runner import Table, write_results
from memr1_jax.text.events import Event

NOT_RUN = "not run"
_PAPER = "ablations"


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure of every run of a row, `value(cell, run)`; without `spread` their mean is shown."""

    heading: str
    value: Callable[[Cell, Mapping[str, Any]], float]
    form: str = ".1f"
    spread: bool = True


@dataclasses.dataclass(frozen=True)
class Shape:
    """Lays out a table: headings of labels, figures, which of them are drawn, and what to know.

    With `lines` the picture has the first labels from left to right and a line for every second
    one; without, a bar for every row.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    drawn: tuple[Column, ...]
    note: str
    lines: bool = False


def write_report(
    folder: Path,
    options: Mapping[str, Any],
    tables: Mapping[str, Sequence[Row]],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """Prints the tables; writes `results.md`, `<table>.png` and, last, `results.json`.

    Args:
      folder: where to.
      options: of the ablations, to be kept with their results.
      tables: from `ablation_cells.plan`.
      runs: by cell, from `runner.run_study`: one a seed; one alone where seeds make no difference.

    Returns:
      What `results.json` holds: options; by cell its settings, and of each run what was measured,
      the rewards of its steps and the seconds a step; by table its figures, row by row.
    """
    found = {
        "options": dict(options),
        "cells": {cell.name: _cell(cell, runs[cell.name]) for cell in cells_of(tables)},
        "tables": {
            name: [_figures(SHAPES[name], row, runs) for row in rows]
            for name, rows in tables.items()
        },
    }
    return write_results(
        folder,
        found,
        [_table(SHAPES[name], rows, runs) for name, rows in tables.items()],
        {f"{name}.png": draw(SHAPES[name], rows, runs) for name, rows in tables.items()},
        f"The paper's own figures, of larger models on LoCoMo\n\n{paper_markdown(_PAPER)}",
    )


def draw(shape: Shape, rows: Sequence[Row], runs: Mapping[str, Sequence]) -> bytes:
    """Returns the drawn columns as a PNG, a panel each: means with intervals, as bars or lines."""
    rows = [row for row in rows if row.cell is not None]
    height = 3.8 if shape.lines else 1.2 + 0.45 * len(rows)
    count = len(shape.drawn)
    shared = not shape.lines  # the names of the bars
    figure, panels = new_figure(count, (5.5 * count, height), sharey=shared)
    for panel, column in zip(panels, shape.drawn, strict=True):
        found = [mean_interval(_values(column, row, runs)) for row in rows]
        means = np.array([item["mean"] for item in found])
        halves = np.array([item["half_width"] or 0.0 for item in found])
        if shape.lines:
            _lines(panel, shape, rows, means, halves, column.heading)
        else:
            draw_bars(panel, [", ".join(row.labels) for row in rows], means, halves, column.heading)
    if shape.lines:
        panels[-1].legend(title=shape.labels[1], frameon=False, bbox_to_anchor=(1, 1))
    return png(figure)


def _lines(panel, shape, rows, means, halves, heading):
    """Draws a line for every second label over the first ones, with intervals set apart."""
    places = list(dict.fromkeys(row.labels[0] for row in rows))
    names = list(dict.fromkeys(row.labels[1] for row in rows))
    for index, name in enumerate(names):
        chosen = [number for number, row in enumerate(rows) if row.labels[1] == name]
        apart = 0.04 * (index - (len(names) - 1) / 2)
        place = [places.index(rows[number].labels[0]) + apart for number in chosen]
        panel.errorbar(place, means[chosen], halves[chosen], fmt="o-", capsize=3, label=name)
    panel.set_xticks(range(len(places)), places)
    panel.set_xlabel(shape.labels[0])
    panel.set_ylabel(heading)


def _values(column: Column, row: Row, runs) -> list[float]:
    """Returns a figure `[S]` of a row."""
    return [column.value(row.cell, run) for run in runs[row.cell.name]]


def _table(shape: Shape, rows: Sequence[Row], runs) -> Table:
    columns = (*shape.labels, *(column.heading for column in shape.columns))
    cells = [(*row.labels, *_cells(shape, row, runs)) for row in rows]
    return Table(shape.title, columns, cells, len(shape.labels), shape.note)


def _cells(shape, row, runs):
    if row.cell is None:
        return [NOT_RUN] * len(shape.columns)
    return [
        interval_text(values if column.spread else [np.mean(values)], column.form)
        for column in shape.columns
        for values in [_values(column, row, runs)]
    ]


def _figures(shape, row, runs):
    """Makes a row for `results.json`: labels, cell, and mean and half width by column."""
    cell, figures = None, {}
    if row.cell is not None:
        cell = row.cell.name
        figures = {c.heading: mean_interval(_values(c, row, runs)) for c in shape.columns}
    return {"labels": list(row.labels), "cell": cell, "figures": figures}


def _cell(cell: Cell, runs):
    return {
        "settings": flag_values(cell.settings),
        "answerer": cell.answerer and cell.answerer.name,
        "sampled": cell.sampled,
        "runs": [
            {
                "measured": run["measured"],
                "rewards": [step["reward"] for step in _steps(cell, run) if "reward" in step],
                "seconds_per_step": _seconds(cell, run),
            }
            for run in runs
        ],
    }


def _steps(cell, run):
    return run["steps"][cell.settings.agent]


def _seconds(cell, run) -> float:
    """Returns the median of a step, 0 where there is none."""
    seconds = [step["seconds"] for step in _steps(cell, run)]
    return float(np.median(seconds)) if seconds else 0.0


def _sampled(cell, run) -> float:
    """Counts the responses that both agents sampled on the way."""
    before = _sampled(cell.answerer, run) if cell.answerer else 0
    return float(cell.sampled + before)


def _share(heading, key):
    return Column(heading, lambda cell, run: 100 * run["measured"][key])


def _number(heading, key):
    return Column(heading, lambda cell, run: run["measured"][key], ".2f")


def _of_event(event):
    def value(cell, run):
        return 100 * run["measured"]["by_event"].get(event.name, np.nan)

    return Column(f"right {event.name}", value)


def _of_facts(heading, key):
    def value(cell, run):
        health = run["measured"]["health"]
        return 100 * health[key] / health["facts"]

    return Column(heading, value)


_DIALOGUE = _share("whole dialogues, exact match", "dialogue")
_DIALOGUE_F1 = _share("whole dialogues, F1", "dialogue_f1")
_ANSWER = _share("right banks, exact match", "answer")
_ANSWER_F1 = _share("right banks, F1", "answer_f1")
_MANAGER = _share("one edit, exact match", "manager")
_OPERATIONS = _share("right operations", "operations")
_WORDS = _number("words an answer", "answer_words")
_GOLD = dataclasses.replace(_number("words a gold answer", "gold_words"), spread=False)
_TOKENS = _number("tokens a response", "response_tokens")
_SECONDS = Column("seconds a step", _seconds, ".2f", spread=False)
_HEALTH = (
    _of_facts("facts missing", "missing"),
    _of_facts("stale", "stale"),
    _of_facts("duplicates", "duplicates"),
    _of_facts("wrong deletes", "wrong_deletes"),
)
_EVENTS = tuple(_of_event(event) for event in Event)
_LONG = (_DIALOGUE, _MANAGER, _OPERATIONS, *_HEALTH)
_ASKED = Column("questions", lambda cell, run: run["measured"]["questions"], ".0f", spread=False)
_MEANS = (
    "Held-out dialogues; shares in percent; mean and 95 percent interval by Student's t over seeds."
)
_KEYS = (
    " Whole dialogues: the manager fills the banks turn by turn from nothing. Right banks: what the"
    " gold operations leave. One edit: of such a bank, answered by the row's Answer Agent. Right"
    " operations: equal to the gold ones, which no reward knows."
)
_OF_FACTS = (
    " Facts missing, stale memories and duplicates at the end, and wrong deletes on the way, are"
    " counted for 100 facts that hold at the end."
)

SHAPES = {
    "agents": Shape(
        "Which agent learns by RL (GRPO, exact match)",
        ("trained",),
        (_DIALOGUE, _DIALOGUE_F1, _ANSWER, _MANAGER, _OPERATIONS),
        (_DIALOGUE, _DIALOGUE_F1),
        _MEANS + _KEYS,
    ),
    "distillation": Shape(
        "Answer Agent with and without the selection of memories",
        ("response", "taught by"),
        (_ANSWER, _ANSWER_F1, _DIALOGUE, _DIALOGUE_F1, _WORDS, _TOKENS),
        (_ANSWER, _DIALOGUE),
        _MEANS + " The lesson: demonstrations with flaws, the same number for both, from the nano"
        " model, which knows the first form already. The manager is untrained.",
    ),
    "reward": Shape(
        "What the Answer Agent is rewarded for (GRPO)",
        ("reward",),
        (_ANSWER, _ANSWER_F1, _WORDS, _GOLD, _TOKENS, _DIALOGUE, _DIALOGUE_F1),
        (_ANSWER, _ANSWER_F1, _WORDS),
        _MEANS + " The judge is the model that --judge_model names; its reward is its log-odds of"
        " yes. Containing the gold answer is what a judge that overlooks no word would find. The"
        " manager is untrained.",
    ),
    "algorithms": Shape(
        "How both agents learn",
        ("algorithm",),
        (
            *(_DIALOGUE, _DIALOGUE_F1, _ANSWER, _MANAGER, _OPERATIONS),
            Column("responses sampled", _sampled, ",.0f", spread=False),
        ),
        (_DIALOGUE, _OPERATIONS),
        _MEANS + _KEYS + " Each manager learns through the Answer Agent of its own row.",
    ),
    "horizon": Shape(
        "What earns the manager a reward, by length of dialogue",
        ("turns with facts", "scheme"),
        (
            *_LONG,
            _ASKED,
            Column("responses sampled", lambda cell, run: cell.sampled, ",.0f", spread=False),
            _SECONDS,
        ),
        (_DIALOGUE, _HEALTH[0]),
        lines=True,
        note=_MEANS
        + _OF_FACTS
        + " Equal compute: all schemes sample as many responses of the manager,"
        " those to turns without a question counted, in as many updates; answers of the frozen"
        " Answer Agent, trained before by GRPO, are not counted.",
    ),
    "window": Shape(
        "Turns before a turn whose facts fill its bank in training",
        ("window",),
        _LONG,
        (_DIALOGUE, _HEALTH[0]),
        _MEANS + _OF_FACTS + " Dialogues of 32 turns with facts, about 110 turns in all; the"
        " one-step scheme of the table of horizons, whose run is that with all turns.",
    ),
    "signals": Shape(
        "What the manager's reward and data are made of (GRPO)",
        ("recipe",),
        (*_LONG, *_EVENTS, _SECONDS),
        (_DIALOGUE, _OPERATIONS),
        _MEANS
        + _OF_FACTS
        + " The managers decode under the grammar and learn through one Answer Agent, trained"
        " before by GRPO. The rows below the whole recipe, experiments/flags/nano_signals.flags,"
        " lack one part of it each.",
    ),
}
