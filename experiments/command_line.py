"""Command lines from option records: flags, their help in groups, and errors as sentences."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging

from memr1_jax.errors import UserError
from memr1_jax.flags import define_flags, given_options, read_arguments
from memr1_jax.options import check, entries
from memr1_jax.run.compiled import keep_compiled_programs

_HELP = {"--help", "-help", "-h", "--helpshort", "-helpshort"}


def parsed(options: type, values: flags.FlagValues = flags.FLAGS) -> Any:
    """Makes the record from the parsed flags; UserError for a value out of its range.

    Values of the model's folder and of a recipe are set, but for those that were given.
    """
    from memr1_jax.training.config import settled

    found, given = given_options(options, values)
    check(found)
    return settled(found, given)


def help_text(options: type, values: flags.FlagValues = flags.FLAGS) -> str:
    """Lists the flags of a command in the groups of its records."""
    groups = dict.fromkeys(entry.group for entry in entries(options()))
    return "\n".join(values.module_help(group) for group in groups)


def run(
    options: type, main: Callable[[Any], Any], about: str, argv: Sequence[str] | None = None
) -> None:
    """Runs a command: flags, checks, work; the wrapper of all entry points.

    `--help` prints the flags in groups and ends with status 0. A `UserError`, an unknown flag and a
    value that is none become a sentence and status 2. A run that was asked to stop has saved, says
    how to resume and ends with status 0.

    Args:
      options: the record of the command's options.
      main: does the work with the record that the flags make.
      about: the docstring of the command, which begins its help.
      argv: the command's name and its arguments; by default those of this process.
    """
    define_flags(options)
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"

    def parse(argv):
        if _HELP & set(argv[1:]):
            print(f"{about.strip()}\n{help_text(options)}", flush=True)
            sys.exit()
        with _sentences():
            read_arguments(argv)

    def work(_):
        logging.set_verbosity(logging.WARNING)  # orbax reports every file at INFO
        with _sentences():
            chosen = parsed(options)
            if hasattr(chosen, "compilation_cache"):
                keep_compiled_programs(chosen.compilation_cache)
            main(chosen)

    app.run(work, argv=argv, flags_parser=parse)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Ends the process where the user can mend something, or asked for the end."""
    from memr1_jax.run.preemption import Preempted

    try:
        yield
    except (UserError, flags.Error) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except Preempted as stopped:
        from memr1_jax.parallel.distributed import is_main

        if is_main():
            print(stopped)


def run_experiment(options: type, about: str, argv: Sequence[str] | None = None) -> None:
    """Runs the experiment that the flags of `options` describe."""
    run(options, _experiment, about, argv)


def _experiment(options: Any) -> None:
    from memr1_jax.parallel.distributed import initialize
    from memr1_jax.training.experiment import Experiment

    initialize(options.distributed, options.num_processes, options.process_id)
    Experiment(options).run()
