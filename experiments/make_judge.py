"""Makes a judge for the nano model's answers: `python -m experiments.make_judge`.

On two CPU cores it takes minutes; nothing is downloaded.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.studies.nano_judge import NanoJudgeConfig


def main(options: NanoJudgeConfig) -> None:
    """Teaches the judge and writes it."""
    from memr1_jax.studies.nano_judge import make_nano_judge

    make_nano_judge(options)


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(NanoJudgeConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
