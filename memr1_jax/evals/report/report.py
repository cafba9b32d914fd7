"""Evaluations as files of a run: scores, a Markdown table, every prediction."""

import dataclasses
import json
import os
from pathlib import Path

from memr1_jax.evals.answering import Prediction, summarise
from memr1_jax.evals.metrics import results_markdown
from memr1_jax.evals.pipeline import Evaluation
from memr1_jax.run.files import write_json_atomic, write_text_atomic


def write_evaluation(
    folder: str | os.PathLike, name: str, evaluation: Evaluation, split: str
) -> None:
    """Writes `predictions_<name>.jsonl`, `evaluation_<name>.md` and `evaluation_<name>.json`.

    The last one comes last: where it stands, the others are complete.
    """
    folder = Path(folder)
    lines = [
        json.dumps(dataclasses.asdict(prediction), ensure_ascii=False) + "\n"
        for prediction in evaluation.predictions
    ]
    write_text_atomic(folder / f"predictions_{name}.jsonl", "".join(lines))
    write_text_atomic(folder / f"evaluation_{name}.md", results_markdown(evaluation.summary))
    write_json_atomic(
        folder / f"evaluation_{name}.json",
        {
            "split": split,
            "questions": len(evaluation.predictions),
            "scores": evaluation.summary,
            "manager": evaluation.ingestion,
        },
    )


def read_evaluation(folder: str | os.PathLike, name: str) -> Evaluation | None:
    """What `write_evaluation` wrote, or None where it did not finish."""
    folder = Path(folder)
    path = folder / f"evaluation_{name}.json"
    if not path.is_file():
        return None
    lines = (folder / f"predictions_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    predictions = [Prediction(**json.loads(line)) for line in lines]
    manager = json.loads(path.read_text(encoding="utf-8"))["manager"]
    return Evaluation(summarise(predictions), predictions, manager)
