"""Makes the nano model that the package ships: `python -m experiments.make_nano`.

On two CPU cores it takes under an hour; nothing is downloaded.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.studies.nano import NanoConfig


def main(options: NanoConfig) -> None:
    """Teaches the model and writes it."""
    from memr1_jax.studies.nano import make_nano

    make_nano(options)


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(NanoConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
