"""Prints turns of a manager in full, to judge them by hand: `python -m experiments.operations`.

`--output=runs/NAME --count=50` draws fifty of all turns, `--only=UPDATE,DELETE` of those alone that
change what is there.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.evals.report.operation_sample import OperationSampleConfig, operation_sample


def main(options: OperationSampleConfig) -> None:
    """Prints the sample as Markdown."""
    print(operation_sample(options))


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(OperationSampleConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
