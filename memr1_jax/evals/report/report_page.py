"""`report.html`: a run on one page that opens without a network.

The page is made only from the files of the run folder, so it can be made again at any time. Text
that models wrote is escaped, and the page's own policy forbids any script but its own.
"""

import dataclasses
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memr1_jax import __version__
from memr1_jax.errors import UserError
from memr1_jax.evals.evaluator import Evaluation
from memr1_jax.evals.report.before_after import compare
from memr1_jax.evals.report.charts import Drawing, draw
from memr1_jax.evals.report.inline import event_styles, source_of
from memr1_jax.evals.report.merged_replays import merge_replays
from memr1_jax.evals.report.replay import read_replay
from memr1_jax.evals.report.report import read_evaluation
from memr1_jax.evals.report.run_charts import agent_charts
from memr1_jax.options import user_path
from memr1_jax.run.files import writable_file, write_text_atomic
from memr1_jax.run.metrics_log import first_and_last, read_metrics, records_of
from memr1_jax.text.events import Event

AGENTS = {"manager": "Memory Manager", "answer": "Answer Agent"}
_WHEN = {"before": "Before training", "after": "After training"}
_PAGE = "page"
_SUMMARY = (  # flags that describe the run in a line
    *("algorithm", "agent", "model", "answer_model", "data", "reward", "kl_weight", "batch"),
    *("group", "learning_rate", "bank_builder", "eval_split", "seed"),
)
_FILES = (
    *("metrics.jsonl", "flags.txt", "reward.png", "evaluation_before.json"),
    *("evaluation_after.json", "predictions_before.jsonl", "predictions_after.jsonl"),
    *("replay_before.json", "replay_after.json"),
)


@dataclasses.dataclass(frozen=True)
class Training:
    """An agent's part of the page: its name, its steps, and a mean over a fifth of them."""

    title: str
    steps: int
    what: str  # "reward" or "loss"
    few: int  # steps in either mean
    first: float
    last: float
    drawings: tuple[Drawing, ...]


def write_report_page(folder: str | os.PathLike) -> Path:
    """Writes `report.html` into a run folder and returns its path.

    Raises:
      UserError: the folder holds neither metrics nor an evaluation, or a file in it is damaged.
    """
    folder = user_path(folder).absolute()
    text = report_page(folder)
    path = writable_file(folder / "report.html")
    write_text_atomic(path, text)
    return path


def report_page(folder: Path) -> str:
    """Renders the page of a run folder as HTML; UserError as in `write_report_page`."""
    metrics = folder / "metrics.jsonl"
    records = read_metrics(metrics) if metrics.is_file() else []
    names = evaluations_in(folder)
    if not records and not names:
        raise UserError(
            f"There is nothing to report in {folder}: it holds neither metrics.jsonl nor an"
            " evaluation. Give --output the folder of a run."
        )
    evaluations = {name: read_evaluation(folder, name) for name in names}
    replays = {name: read_replay(folder, name) for name in names}
    flags = _flags(folder)
    return _render(
        title=folder.name,
        version=__version__,
        summary=[(name, flags[name]) for name in _SUMMARY if flags.get(name)],
        flags=flags,
        trainings=_trainings(records),
        evaluations=evaluations,
        comparison=compare(evaluations) if evaluations else None,
        headline=_headline(evaluations),
        dialogues=merge_replays({name: found for name, found in replays.items() if found}),
        files=[name for name in _FILES if (folder / name).is_file()],
        when=lambda name: _WHEN.get(name, name),
    )


def evaluations_in(folder: Path) -> list[str]:
    """Lists the evaluations in a folder: before, after, then others by name."""
    prefix = "evaluation_"
    found = sorted(path.stem.removeprefix(prefix) for path in folder.glob(f"{prefix}*.json"))
    return sorted(found, key=lambda name: list(_WHEN).index(name) if name in _WHEN else len(_WHEN))


def _flags(folder: Path) -> dict[str, str]:
    path = folder / "flags.txt"
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return dict(line[2:].split("=", 1) for line in lines if line.startswith("--") and "=" in line)


def _trainings(records: Sequence[Mapping[str, Any]]) -> list[Training]:
    trainings = []
    for agent in dict.fromkeys(record["agent"] for record in records):
        steps = records_of(records, agent, "train")
        validation = records_of(records, agent, "validation")
        if steps:
            what, few, first, last = first_and_last(steps)
            drawings = tuple(draw(chart) for chart in agent_charts(agent, steps, validation))
            title = AGENTS.get(agent, agent)
            trainings.append(Training(title, len(steps), what, few, first, last, drawings))
    return trainings


def _headline(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, int, float]]:
    """Lists exact match of each evaluation in percent, with the number of questions."""
    return [
        (name, len(one.predictions), 100 * one.overall["exact_match"])
        for name, one in evaluations.items()
        if one.overall.get("exact_match") is not None
    ]


def _render(**context) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("memr1_jax.evals.report", _PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["Event"] = Event
    environment.filters["signed"] = lambda value: f"{value:+.2f}".replace("-", "−")
    folder = importlib.resources.files("memr1_jax.evals.report") / _PAGE
    style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    style = event_styles() + style
    return environment.get_template("report.html").render(
        **context,
        style=style,
        script=script,
        style_hash=source_of(style),
        script_hash=source_of(script),
    )
