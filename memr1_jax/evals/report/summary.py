"""Sums up a run in a few rows: rewards in training, and scores before and after it."""

import os
from pathlib import Path

from memr1_jax.evals.report.report import read_evaluation
from memr1_jax.run.json_files import read_json_object
from memr1_jax.run.metrics_log import first_and_last, read_metrics, records_of

COLUMNS = ("what", "before", "after")
_METRICS = ("f1_set_of_words", "bleu1_method1", "exact_match")


def summary(folder: str | os.PathLike) -> list[tuple[str, float, float]]:
    """Reads what was measured before and after from a run folder; rows of `COLUMNS`.

    Raises:
      UserError: a file is damaged.
    """
    folder, rows = Path(folder), []
    records = []
    if (folder / "metrics.jsonl").exists():
        records = read_metrics(folder / "metrics.jsonl")
    for agent in dict.fromkeys(record["agent"] for record in records):
        if steps := records_of(records, agent, "train"):
            what, few, first, last = first_and_last(steps)
            name = f"training {what} of the {agent} agent, {few} of {len(steps)} steps"
            rows.append((name, first, last))
        if rewards := [r["reward"] for r in records_of(records, agent, "validation")]:
            name = f"validation reward of the {agent} agent, the best of {len(rewards)}"
            rows.append((name, rewards[0], max(rewards)))
    before, after = (read_evaluation(folder, when) for when in ("before", "after"))
    if before is not None and after is not None:
        advice = "The file was damaged. Evaluate the run again."
        split = read_json_object(folder / "evaluation_after.json", advice)["split"]
        for metric in _METRICS:
            name = f"{split} {metric}, {len(before.predictions)} questions"
            rows.append((name, before.overall[metric], after.overall[metric]))
    return rows
