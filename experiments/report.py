"""Writes report.html into the folder of a run: `python -m experiments.report --output=runs/NAME`.

A training run and an evaluation write it themselves at their end; this writes it again. While a run
has the folder it is refused, as a page of half a run would mix its figures.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.options import user_path
from memr1_jax.run.files import holds_run
from memr1_jax.run.lock import hold
from memr1_jax.training.option_groups import OutputConfig


def main(options: OutputConfig) -> None:
    """Writes the page and says where it is."""
    from memr1_jax.evals.report.report_page import write_report_page

    folder = user_path(options.output).absolute()
    if holds_run(folder):
        hold(folder)  # until this process ends
    print(f"Open {write_report_page(folder)}")


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(OutputConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
