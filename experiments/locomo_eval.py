"""Evaluates a pair of agents on whole dialogues: `python -m experiments.locomo_eval`.

The manager is `--model`, the Answer Agent `--answer_model`, both Hugging Face folders or names.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.training.config import EvaluationConfig


def main(options: EvaluationConfig) -> None:
    """Builds the banks of the split, answers its questions, prints and writes the scores."""
    from memr1_jax.inference.evaluation import evaluate

    evaluate(options)


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(EvaluationConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
