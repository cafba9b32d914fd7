"""A finished row as files: predictions, figures and, apart from them, times.

Times differ from run to run; all other files of a run that was stopped and resumed are those of one
that was not.
"""

import collections
import dataclasses
import os
from pathlib import Path

from memr1_jax.bench.harness import RowRun
from memr1_jax.bench.operations import of_answers, operation_scores
from memr1_jax.bench.scoring import Answered
from memr1_jax.bench.systems.protocol import Memory
from memr1_jax.bench.usage import summarise_evidence, total_usage, usage_by_stage
from memr1_jax.errors import UserError
from memr1_jax.run.files import write_json_atomic
from memr1_jax.run.json_files import read_json_lines, read_json_object, write_json_lines
from memr1_jax.run.typed_records import typed
from memr1_jax.text.events import REPORTED

OPERATIONS = tuple(event.key for event in REPORTED)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row that has run: its predictions, figures that do not depend on the clock, and times."""

    answered: list[Answered]
    figures: dict
    timing: dict


def row_of(run: RowRun) -> Row:
    """Computes the figures of a row that has just run."""
    figures = {
        "questions": len(run.answered),
        "conversations": len({item.conversation for item in run.answered}),
        "calls": usage(run),
        "operations": {name: run.counts.get(name, 0) for name in OPERATIONS},
        "unreadable": _with_suffix(run.counts, "_failed"),
        "recovered": _with_suffix(run.counts, "_recovered"),
        "unknown_ids": run.counts.get("unknown_ids", 0),
        "gone_ids": run.counts.get("gone_ids", 0),
        "counts": dict(sorted(run.counts.items())),
        "bank": {"items": run.bank_items, "tokens": run.bank_tokens},
        "memories_without_room": run.without_room,
        "evidence": dataclasses.asdict(summarise_evidence(item.evidence for item in run.answered)),
    }
    managed = any(figures["operations"].values())
    if counts := run.operations if managed else of_answers(run.operations):
        found = {"counts": dict(sorted(counts.items()))}
        figures["gold_operations"] = operation_scores(counts) | found
    return Row(run.answered, figures, timing(run))


def usage(run: RowRun) -> dict[str, dict[str, int]]:
    """Counts calls, tokens, responses cut off, and cut prompts and tokens, by stage and in all."""
    stages = usage_by_stage(run.calls)
    figures = {
        stage.stage: {
            "calls": stage.calls,
            "prompt_tokens": stage.prompt_tokens,
            "tokens": stage.tokens,
            "cut_off": stage.cut_off,
        }
        for stage in stages
    }
    figures["all"] = total_usage(stages)
    for name, found in figures.items():
        cuts = [reply.cut for call, reply in run.calls if name in ("all", call.stage)]
        found |= {"cut_prompts": sum(cut > 0 for cut in cuts), "cut_tokens": sum(cuts)}
    return figures


def timing(run: RowRun) -> dict[str, dict[str, float]]:
    """Returns the median and the 95th percentile of seconds by stage."""
    return {
        stage.stage: {"calls": stage.calls, "p50": stage.p50, "p95": stage.p95}
        for stage in usage_by_stage(run.calls, run.search_seconds)
    }


def write_row(folder: str | os.PathLike, name: str, row: Row) -> None:
    """Writes the files of a row; the one with its figures comes last, when the others are whole."""
    folder = Path(folder)
    write_json_lines(folder / f"{name}.predictions.jsonl", map(dataclasses.asdict, row.answered))
    write_json_atomic(folder / f"{name}.timing.json", row.timing)
    write_json_atomic(folder / f"{name}.json", row.figures)


def read_row(folder: str | os.PathLike, name: str) -> Row | None:
    """Reads what `write_row` wrote; None where it did not finish."""
    folder = Path(folder)
    if not (folder / f"{name}.json").is_file():
        return None
    try:
        figures, times = (read_json_object(folder / f"{name}{end}.json") for end in ("", ".timing"))
        lines = read_json_lines(folder / f"{name}.predictions.jsonl")
        answered = [_answered(typed(Answered, fields)) for _, fields in lines]
        times = typed(dict[str, dict[str, int | float]], times)
    except (UserError, ValueError) as error:
        raise UserError(
            f"The files of the row {name} in {folder} cannot be read ({error}). Remove "
            f"{name}.json there, so that the row runs again."
        ) from error
    return Row(answered, figures, times)


def _answered(record: Answered) -> Answered:
    shown = (typed(Memory, memory) for memory in record.memories)
    return dataclasses.replace(record, memories=tuple(map(dataclasses.asdict, shown)))


def _with_suffix(counts: collections.Counter, suffix: str) -> int:
    return sum(value for name, value in counts.items() if name.endswith(suffix))
