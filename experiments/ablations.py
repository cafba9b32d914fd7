"""The paper's ablations on the nano model: `python -m experiments.ablations`.

Everything is in the package or made on the spot. A second call goes on where the first was stopped.
"""

from experiments.command_line import define_flags, parsed, run
from memr1_jax.studies.ablation_cells import AblationsConfig

define_flags(AblationsConfig)


def main() -> None:
    """Runs what is missing, prints the tables and writes them, their pictures and all figures."""
    from memr1_jax.run.preemption import Preempted
    from memr1_jax.studies.ablations import ablate

    try:
        ablate(parsed(AblationsConfig))
    except Preempted:
        print("Stopped, as asked. The same command goes on from here.")


if __name__ == "__main__":
    run(main)
