"""Shows what RL teaches the nano model, by GRPO and PPO: `python -m experiments.learning`.

Everything is in the package or made on the spot. A second call resumes the first.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.studies.learning import LearningConfig


def main(options: LearningConfig) -> None:
    """Runs what is missing, prints the tables and writes them, the curves and all figures."""
    from memr1_jax.studies.learning import learn

    learn(options)


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(LearningConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
