"""Trains Memory-R1's agents with PPO: `python -m experiments.locomo_ppo --flagfile=FILE`."""

from experiments.command_line import run_experiment
from memr1_jax.training.config import PPOConfig

if __name__ == "__main__":
    run_experiment(PPOConfig)
