"""Evaluations of one run side by side: scores by category, and what the manager did."""

import dataclasses
from collections.abc import Mapping

from memr1_jax.evals.evaluator import Evaluation
from memr1_jax.evals.intervals import difference_by_questions, shared
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
    "salvaged": "broken responses that were kept in part",
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

    `change` is from the first to the last over the questions that both asked, None where there are
    none; `interval` is its 95 percent interval over the same questions, if there are several.
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
    """Scores by category, in the columns `metrics`, and the manager's counts by evaluation.

    `note` says how the first and the last evaluation differ apart from their scores, if they do.
    """

    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    counts: tuple[tuple[str, tuple[float | None, ...]], ...]
    note: str


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Puts evaluations side by side, in their order; changes are over the same questions only."""
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
        metrics=tuple(_METRICS[name] for name in names),
        rows=tuple(rows),
        counts=_counts(found),
        note=_note(found),
    )


def _note(found):
    first, last = ({_key(p) for p in one.predictions} for one in (found[0], found[-1]))
    if first == last:
        return ""
    same = len(first & last)
    return (
        f"The evaluations did not ask the same questions: {len(first)} and {len(last)};"
        f" {same} are the same. Each score is over its own questions; "
        + ("changes and intervals are over the same ones alone." if same else "none has a change.")
    )


def _key(prediction):
    """Identifies a question; ids alone recur in dialogues generated with other seeds."""
    return prediction.conversation, prediction.index, prediction.question, prediction.gold


def _cell(found, present, category, name):
    scores = [None if entry is None else entry.get(name) for entry in present]
    values = tuple(None if score is None else 100 * score for score in scores)
    change = interval = None
    if len(values) > 1 and values[0] is not None and values[-1] is not None:
        first, last = shared(*(_scores(one, category, name) for one in (found[0], found[-1])))
        if first:
            change = 100 * (sum(last.values()) - sum(first.values())) / len(first)
        if len(first) > 1:
            found_interval = difference_by_questions(last, first)
            interval = (100 * found_interval.low, 100 * found_interval.high)
    return Cell(values, change, interval)


def _scores(evaluation, category, name):
    """Returns a metric of each question of a category; None: of all but adversarial ones."""
    return {
        _key(p): p.scores[name]
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
