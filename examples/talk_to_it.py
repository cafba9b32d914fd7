"""Talk to an agent with a memory: it remembers what it is told and answers questions from that.

    python examples/talk_to_it.py            # or --agents=runs/quickstart, any folder or hub name

Lines that end with a question mark are questions; `/memory` shows the bank, and an empty line ends.
"""

import argparse
import sys
from collections.abc import Iterable

import memr1_jax as m1


def talk(agents: m1.Agents, speaker: str, lines: Iterable[str]) -> m1.Memories:
    """Works through what is typed, and returns what was remembered."""
    memories = agents.empty()
    for line in map(str.strip, lines):
        if not line:
            break
        if line == "/memory":
            print(memories)
        elif line.endswith("?"):
            print(agents.answer(line, memories))
        else:
            known = len(memories)
            memories = agents.remember([(speaker, line)], memories)
            print(f"({known} -> {len(memories)} memories)")
    return memories


def main(arguments: list[str] | None = None) -> m1.Memories:
    """Loads the agents and talks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--agents", default="nano", help="what memr1_jax.load takes")
    parser.add_argument("--speaker", default="Ana", help="who you are")
    options = parser.parse_args(arguments)
    agents = m1.load(options.agents)
    print("Tell me something, or ask. /memory shows what I remember; an empty line ends.")
    return talk(agents, options.speaker, sys.stdin)


if __name__ == "__main__":
    main()
