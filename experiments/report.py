"""Writes report.html into the folder of a run: `python -m experiments.report --output=runs/NAME`.

A training run and an evaluation write it themselves at their end; this writes it again, or shows
a run at work as far as it has come.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.run.run_folder import OutputConfig


def main(options: OutputConfig) -> None:
    """Writes the page and says where it is."""
    from memr1_jax.evals.report.report_page import write_report_page

    print(f"Open {write_report_page(options.output)}")


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(OutputConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
