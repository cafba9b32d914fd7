"""The paper's ablations on the nano model: `python -m experiments.ablations`.

Everything is in the package or made on the spot. A second call resumes the first.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.studies.ablation_cells import AblationsConfig


def main(options: AblationsConfig) -> None:
    """Runs what is missing, prints the tables and writes them, their pictures and all figures."""
    from memr1_jax.studies.ablations import ablate

    ablate(options)


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(AblationsConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
