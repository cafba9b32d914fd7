"""Evaluates a pair of agents on whole dialogues: `python -m experiments.locomo_eval`.

The manager is `--model`, the Answer Agent `--answer_model`, both Hugging Face folders or names.
"""

from experiments.command_line import define_flags, parsed, run
from memr1_jax.training.config import EvaluationConfig

define_flags(EvaluationConfig)


def main() -> None:
    """Builds the banks of the split, answers its questions, prints and writes the scores."""
    from memr1_jax.training.evaluation import evaluate

    evaluate(parsed(EvaluationConfig))


if __name__ == "__main__":
    run(main)
