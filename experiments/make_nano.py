"""Makes the nano model that the package ships: `python -m experiments.make_nano`.

On two CPU cores it takes under an hour; nothing is downloaded.
"""

from experiments.command_line import define_flags, parsed, run
from memr1_jax.studies.nano import NanoConfig

define_flags(NanoConfig)


def main() -> None:
    """Teaches the model and writes it."""
    from memr1_jax.studies.nano import make_nano

    make_nano(parsed(NanoConfig))


if __name__ == "__main__":
    run(main)
