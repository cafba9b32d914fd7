"""GRPO beside PPO on a small task, three seeds each: `python -m experiments.compare_algorithms`.

Everything is made on the spot: model, dialogues, warm start. A second call goes on where the first
was stopped.
"""

from experiments.command_line import define_flags, parsed, run
from memr1_jax.training.comparison import ComparisonConfig

define_flags(ComparisonConfig)


def main() -> None:
    """Runs what is missing, prints the table and writes it, the curves and all figures."""
    from memr1_jax.training.comparison import compare
    from memr1_jax.training.preemption import Preempted

    try:
        compare(parsed(ComparisonConfig))
    except Preempted:
        print("Stopped, as asked. The same command goes on from here.")


if __name__ == "__main__":
    run(main)
