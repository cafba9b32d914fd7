"""Makes the nano agents, which read raw turns: `python -m experiments.make_nano_agents`.

Nothing is downloaded.
"""

from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.studies.nano_agents import NanoAgentsConfig


def main(options: NanoAgentsConfig) -> None:
    """Teaches the model by demonstrations of generated dialogues with open words, and tests it."""
    from memr1_jax.studies.nano_agents import make_nano_agents

    make_nano_agents(options)


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(NanoAgentsConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
