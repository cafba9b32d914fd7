"""Trains Memory-R1's agents on demonstrations: `python -m experiments.locomo_sft --flagfile=FILE`.

With --algorithm=best_of_n they learn from the best of their own samples instead.
"""

from collections.abc import Sequence

from experiments.command_line import run_experiment
from memr1_jax.training.config import SFTConfig


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run_experiment(SFTConfig, __doc__, argv)


if __name__ == "__main__":
    command()
