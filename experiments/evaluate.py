"""Makes a table of memory systems on one backbone: `python -m experiments.evaluate`.

    python -m experiments.evaluate --flagfile=experiments/flags/tables/locomo_main.flags \
        --rows=bm25_turns,oracle --max_questions=20

A command that was stopped goes on where it was when it is given again.
"""

from experiments.command_line import define_flags, parsed, run
from memr1_jax.bench.tables.table_config import TableConfig

define_flags(TableConfig)


def main() -> None:
    """Runs the rows, writes and prints the table."""
    from memr1_jax.bench.tables.job import make_table

    make_table(parsed(TableConfig))


if __name__ == "__main__":
    run(main)
