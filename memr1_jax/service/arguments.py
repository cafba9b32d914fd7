"""Command-line arguments that the commands around a memory share."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.run.compiled import AUTO, keep_compiled_programs
from memr1_jax.service.memory import Memory
from memr1_jax.service.reading import DEFAULT_DB
from memr1_jax.service.scope import IDS


def parser(about: str) -> argparse.ArgumentParser:
    """Returns a parser that says what a module's docstring begins with."""
    return argparse.ArgumentParser(description=about.splitlines()[0])


def add_places(found: argparse.ArgumentParser) -> None:
    """Adds `--db`, `--agents` and `--answer-agent`."""
    found.add_argument(
        "--db",
        default=os.environ.get("MEMR1_DB", DEFAULT_DB),
        help="SQLite file or postgresql:// URL (environment: MEMR1_DB; default: %(default)s)",
    )
    found.add_argument(
        "--agents",
        default=os.environ.get("MEMR1_AGENTS", "nano"),
        help="run folder, model, or nano (environment: MEMR1_AGENTS; default: %(default)s)",
    )
    found.add_argument("--answer-agent", default="", help="the Answer Agent's model, if another")
    found.add_argument(
        "--fit-words", action="store_true", help="weigh a query's words by the memories searched"
    )


def add_ids(found: argparse.ArgumentParser) -> None:
    """Adds mem0's flags that say whose memory it is."""
    found.add_argument("-u", "--user-id", help="whose memory it is")
    found.add_argument("--agent-id", help="which agent's")
    found.add_argument("--run-id", help="which run's")


def ids_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the ids that were given, as arguments of `Memory`."""
    return {name: getattr(arguments, name) for name in IDS}


def open_memory(arguments: argparse.Namespace) -> Memory:
    """Opens the memory that the arguments name; compiled programs are kept between starts."""
    keep_compiled_programs(AUTO)
    answerer = [arguments.answer_agent] if arguments.answer_agent else []
    return Memory([arguments.agents, *answerer], db=arguments.db, fit_words=arguments.fit_words)


def run(
    found: argparse.ArgumentParser,
    main: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
) -> None:
    """Parses a command line and runs it; a `UserError` is a sentence on stderr and status 2."""
    argv = list(sys.argv if argv is None else argv)
    found.prog = argv[0]
    try:
        main(found.parse_args(argv[1:]))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
