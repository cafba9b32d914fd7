"""Trains Memory-R1's agents with GRPO: `python -m experiments.locomo_grpo --flagfile=FILE`."""

from experiments.command_line import define_flags, parsed, run
from memr1_jax.training.config import ExperimentConfig

define_flags(ExperimentConfig)


def main() -> None:
    """Evaluates, trains, evaluates again and exports; see the README for what it leaves."""
    from memr1_jax.training.experiment import Experiment

    Experiment(parsed(ExperimentConfig)).run()


if __name__ == "__main__":
    run(main)
