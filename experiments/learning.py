"""What RL teaches the nano model, GRPO beside PPO: `python -m experiments.learning`.

Everything is in the package or made on the spot. A second call goes on where the first was stopped.
"""

from experiments.command_line import define_flags, parsed, run
from memr1_jax.studies.learning import LearningConfig

define_flags(LearningConfig)


def main() -> None:
    """Runs what is missing, prints the tables and writes them, the curves and all figures."""
    from memr1_jax.run.preemption import Preempted
    from memr1_jax.studies.learning import learn

    try:
        learn(parsed(LearningConfig))
    except Preempted:
        print("Stopped, as asked. The same command goes on from here.")


if __name__ == "__main__":
    run(main)
