"""Evaluations as files of a run: scores, a Markdown table, every prediction."""

import dataclasses
import os
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.evals.answering import Prediction, summarise
from memr1_jax.evals.evaluator import Evaluation
from memr1_jax.evals.metrics import results_markdown
from memr1_jax.run.files import DAMAGE, write_json_atomic, write_text_atomic
from memr1_jax.run.json_files import read_json_lines, read_json_object, write_json_lines
from memr1_jax.run.typed_records import typed


def write_evaluation(
    folder: str | os.PathLike, name: str, evaluation: Evaluation, split: str
) -> None:
    """Writes `predictions_<name>.jsonl`, `evaluation_<name>.md` and `evaluation_<name>.json`.

    The last one is written last: where it exists, the others are complete.
    """
    folder = Path(folder)
    write_json_lines(
        folder / f"predictions_{name}.jsonl", map(dataclasses.asdict, evaluation.predictions)
    )
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


def remove_evaluation(folder: str | os.PathLike, name: str) -> None:
    """Removes the file that says an evaluation is complete; the others are overwritten."""
    (Path(folder) / f"evaluation_{name}.json").unlink(missing_ok=True)


def read_evaluation(folder: str | os.PathLike, name: str) -> Evaluation | None:
    """Reads what `write_evaluation` wrote, or None where it did not finish.

    Raises:
      UserError: a file is damaged.
    """
    folder = Path(folder)
    path = folder / f"evaluation_{name}.json"
    if not path.is_file():
        return None
    advice = f"The file was damaged. Remove {path}, and the evaluation can be made again."
    listed = folder / f"predictions_{name}.jsonl"
    try:
        stored = read_json_object(path, advice)
        manager = typed(dict[str, int | float], stored["manager"], "manager")
        predictions = [typed(Prediction, one) for _, one in read_json_lines(listed, advice)]
        scores = summarise(predictions)
        if _numbers(stored["scores"]) != _numbers(scores):
            raise ValueError("the scores are not those of the predictions")
        return Evaluation(scores, predictions, manager)
    except DAMAGE as error:
        raise UserError(f"{path} or {listed.name}: not an evaluation. {advice}") from error


def _numbers(scores: list[dict]) -> list[dict]:
    """Returns the figures of all categories, without the categories' names."""
    return [{k: x for k, x in entry.items() if not isinstance(x, str)} for entry in scores]
