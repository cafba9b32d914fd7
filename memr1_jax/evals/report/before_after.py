"""Evaluations of one run side by side: scores by category, and what the manager did."""

import dataclasses
from collections.abc import Mapping

from memr1_jax.evals.intervals import difference_by_questions, shared
from memr1_jax.evals.pipeline import Evaluation
from memr1_jax.text.events import REPORTED

_METRICS = {
    "f1_set_of_words": "F1, sets of words",
    "bleu1_method1": "BLEU-1",
    "exact_match": "Exact match",
    "f1_locomo_official": "F1, LoCoMo's own",
}
_COUNTS = {
    "turns": "turns with new facts",
    **{event.key: event.label for event in REPORTED},
    "invalid": "responses that could not be read",
    "responses_cut": "responses that were cut off",
    "salvaged": "broken responses of which something was kept",
    "skipped": "entries without a usable event, id or text",
    "unknown": "ids that were not shown",
    "gone": "ids that the same response had deleted",
    "refused": "ADDs into a full bank",
    "dropped": "operations beyond the limit",
    "cut": "written texts that were cut",
    "overflowed": "memories that were cut",
    "unread": "responses longer than what is read",
    "facts_cut": "noted facts that were cut",
    "facts_skipped": "noted facts without text",
}
_ALWAYS = ("turns", *(event.key for event in REPORTED), "invalid")  # the others where not 0


@dataclasses.dataclass(frozen=True)
class Cell:
    """A metric in each evaluation, in percent; None where it does not apply.

    `change` is that from the first to the last, None unless there are two or more; `interval` is
    its 95 percent interval over the questions that both answered, None where there is none.
    """

    values: tuple[float | None, ...]
    change: float | None
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Row:
    """One category of questions; `count` is that of the first evaluation that has it."""

    name: str
    count: int
    cells: tuple[Cell, ...]
    overall: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Scores by category, in the columns `metrics`, and the manager's counts by evaluation."""

    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    counts: tuple[tuple[str, tuple[float | None, ...]], ...]


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Puts evaluations of the same dialogues side by side, in their order."""
    found = list(evaluations.values())
    entries = [{entry["category"]: entry for entry in one.summary} for one in found]
    categories = list(dict.fromkeys(category for entry in entries for category in entry))
    categories = [*(c for c in categories if c is not None), None]  # the mean comes last
    names = [name for name in _METRICS if any(name in e for one in found for e in one.summary)]
    rows = []
    for category in categories:
        present = [entry.get(category) for entry in entries]
        some = next(entry for entry in present if entry)
        cells = tuple(_cell(found, present, category, name) for name in names)
        rows.append(Row(some["name"], some["count"], cells, overall=category is None))
    return Comparison(
        metrics=tuple(_METRICS[name] for name in names), rows=tuple(rows), counts=_counts(found)
    )


def _cell(found, present, category, name):
    scores = [None if entry is None else entry.get(name) for entry in present]
    values = tuple(None if score is None else 100 * score for score in scores)
    change = interval = None
    if len(values) > 1 and values[0] is not None and values[-1] is not None:
        change = values[-1] - values[0]
        first, last = shared(*(_scores(one, category, name) for one in (found[0], found[-1])))
        if len(first) > 1:
            found_interval = difference_by_questions(last, first)
            interval = (100 * found_interval.low, 100 * found_interval.high)
    return Cell(values, change, interval)


def _scores(evaluation, category, name):
    """A metric of each question of a category; None: of all but adversarial ones."""
    return {
        (p.conversation, p.index): p.scores[name]
        for p in evaluation.predictions
        if name in p.scores and (p.category != 5 if category is None else p.category == category)
    }


def _counts(found):
    names = list(dict.fromkeys(name for one in found for name in one.ingestion))
    names.sort(key=lambda name: list(_COUNTS).index(name) if name in _COUNTS else len(_COUNTS))
    counts = {name: tuple(one.ingestion.get(name) for one in found) for name in names}
    return tuple(
        (_COUNTS.get(name, name), values)
        for name, values in counts.items()
        if name in _ALWAYS or any(values)
    )
