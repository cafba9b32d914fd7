"""Trains Memory-R1's agents with PPO: `python -m experiments.locomo_ppo --flagfile=FILE`."""

from collections.abc import Sequence

from experiments.command_line import run_experiment
from memr1_jax.training.config import PPOConfig


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run_experiment(PPOConfig, __doc__, argv)


if __name__ == "__main__":
    command()
