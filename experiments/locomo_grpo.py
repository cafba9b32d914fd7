"""Trains Memory-R1's agents with GRPO: `python -m experiments.locomo_grpo --flagfile=FILE`."""

from collections.abc import Sequence

from experiments.command_line import run_experiment
from memr1_jax.training.config import ExperimentConfig


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run_experiment(ExperimentConfig, __doc__, argv)


if __name__ == "__main__":
    command()
