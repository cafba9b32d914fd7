"""Makes the nano agents, which read raw turns: `python -m experiments.make_nano_agents`."""

from experiments.command_line import define_flags, parsed, run
from memr1_jax.studies.nano_agents import NanoAgentsConfig

define_flags(NanoAgentsConfig)


def main() -> None:
    """Teaches the model by demonstrations of generated dialogues with open words, and tests it."""
    from memr1_jax.studies.nano_agents import make_nano_agents

    make_nano_agents(parsed(NanoAgentsConfig))


if __name__ == "__main__":
    run(main)
