"""Judges the answers of a table, if a judge is named."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from memr1_jax.bench.judge.judge_prompts import PROMPTS
from memr1_jax.bench.judge.judging import Judge, judge_cell, judge_rows
from memr1_jax.bench.scoring import ADVERSARIAL, Answered
from memr1_jax.bench.tables.data import table_source
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.evals.intervals import mean_by_questions
from memr1_jax.run.progress import progress_bar

METRIC = "judge"

# A row's name and predictions to predictions that have verdicts, and the cell of the table.
Judging = Callable[[str, Sequence[Answered]], tuple[list[Answered], str]]


def judging(options: TableConfig, folder: Path) -> Judging | None:
    """Returns a function that judges rows, with verdicts kept in the table's folder.

    None where no judge is named, or the benchmark has no answers to be judged.
    """
    prompts = table_source(options.data).judge
    if not options.judge_model or not prompts:
        return None
    judge, choose = _judge(options), PROMPTS[prompts]

    def judged(name: str, answered: Sequence[Answered]) -> tuple[list[Answered], str]:
        chosen = [
            asked for item in answered if item.category != ADVERSARIAL for asked in by_rubric(item)
        ]
        with progress_bar(max(len(chosen), 1), f"{name}: judging") as progress:
            found = judge_rows(
                chosen,
                judge,
                folder / "verdicts.jsonl",
                lambda done, total: progress.update(done),
                prompt=lambda item: choose(item.kind, item.abstain),
            )
        scores = found.scores
        marked = [
            dataclasses.replace(item, scores=item.scores | {METRIC: scores[key]})
            if (key := (item.conversation, item.index)) in scores
            else item
            for item in answered
        ]
        interval = mean_by_questions(scores, seed=options.seed) if scores else None
        return marked, judge_cell(found, interval)

    return judged


def by_rubric(item: Answered) -> list[Answered]:
    """Returns the answer once for each line of its rubric, which stands in place of the gold."""
    return [dataclasses.replace(item, gold=line) for line in item.rubric] or [item]


def _judge(options: TableConfig) -> Judge:
    if options.judge_url:
        from memr1_jax.bench.judge.endpoint import endpoint_judge, read_key

        key = read_key(os.environ, options.judge_url)
        return endpoint_judge(options.judge_url, options.judge_model, key)
    from memr1_jax.bench.judge.local import folder_identity, local_judge, model_writer
    from memr1_jax.models.loading import load_model

    model = load_model(options.judge_model, dtype=options.dtype)
    return local_judge(folder_identity(model.folder, model.decoder.dtype), model_writer(model))
