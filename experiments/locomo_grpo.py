"""Trains Memory-R1's agents with GRPO: `python -m experiments.locomo_grpo --flagfile=FILE`."""

from experiments.command_line import run_experiment
from memr1_jax.training.config import ExperimentConfig

if __name__ == "__main__":
    run_experiment(ExperimentConfig)
