r"""Makes a table of memory systems on one backbone: `python -m experiments.evaluate`.

    python -m experiments.evaluate --flagfile=experiments/flags/tables/locomo_main.flags \
        --rows=bm25_turns,oracle --eval_questions=20

Given again, a command that was stopped resumes.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.bench.tables.table_config import TableConfig


def main(options: TableConfig) -> None:
    """Runs the rows, writes and prints the table."""
    from memr1_jax.bench.tables.job import make_table

    make_table(options)


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(TableConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
