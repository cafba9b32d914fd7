"""Command lines from option records: flags, their help in groups, and errors as sentences."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging

from experiments.flag_files import expanded
from memr1_jax.errors import UserError
from memr1_jax.options import Range, check, entries, with_options

_HELP = {"--help", "-help", "-h", "--helpshort", "-helpshort"}
_LONGEST_NAME = 100  # characters of a flag
_FORMER = "Former names: accepted in this version"


class _Integer(flags.IntegerParser):
    def __init__(self, within: Range):
        super().__init__()
        self.syntactic_help = f"a whole number, {within}"

    def convert(self, argument: Any) -> int:
        with _told("must be a whole number, such as 8."):
            return super().convert(argument)


class _Float(flags.FloatParser):
    def __init__(self, within: Range):
        super().__init__()
        self.syntactic_help = f"a number, {within}"

    def convert(self, argument: Any) -> float:
        with _told("must be a number, such as 0.5 or 1e-4."):
            return super().convert(argument)


class _Boolean(flags.BooleanParser):
    def parse(self, argument: Any) -> bool:
        with _told("must be true or false."):
            return super().parse(argument)


class _OptionalFloat(_Float):
    """Reads a number, or "none"; 0 is what "none" was in the version before."""

    def __init__(self, within: Range):
        super().__init__(within)
        self.syntactic_help += ", or none"

    def parse(self, argument: Any) -> float | None:
        if str(argument).strip().lower() == "none":
            return None
        return super().parse(argument) or None


_NUMBERS = {int: _Integer, float: _Float}


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(what) from error


class _FormerName(flags.Flag):
    """Hands its value to the flag of the new name."""

    def __init__(self, former: flags.Flag, name: str):
        self._former = former
        text = f"Now --{former.name}."
        super().__init__(former.parser, former.serializer, name, None, text)

    def parse(self, argument: Any) -> None:
        if argument is not None:
            warnings.warn(
                f"--{self.name} is now --{self._former.name}; the former name works in this"
                " version, not in the next.",
                FutureWarning,
                stacklevel=2,
            )
            self._former.parse(argument)
            self._former.using_default_value = False


def define_flags(options: type, values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one absl flag for each option of a record and of those that it holds."""
    for entry in entries(options()):
        told = (entry.flag, entry.value, entry.metadata["help"])
        where = {"flag_values": values, "module_name": entry.group}
        choices = entry.metadata["choices"]
        if choices:
            flags.DEFINE_enum(*told[:2], list(choices), told[2], **where)
        elif entry.kind is bool:
            flags.DEFINE_bool(*told, **where)
            values[entry.flag].parser = _Boolean()
        elif entry.kind is str:
            flags.DEFINE_string(*told, **where)
        else:
            parser = _OptionalFloat if entry.optional else _NUMBERS[entry.kind]
            parser = parser(entry.metadata["within"])  # absl makes one for each set of arguments
            flags.DEFINE(parser, *told, serializer=flags.ArgumentSerializer(), **where)
        if name := entry.metadata["formerly"]:
            former = _FormerName(values[entry.flag], name)
            flags.DEFINE_flag(former, values, module_name=_FORMER)


def read_flags(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    """Reads a command line, the name of the command first, with the flag files that it names.

    Raises:
      UserError: an argument is no flag, or a flag file cannot be read.
      flags.Error: a flag is not known, or its value is none.
    """
    arguments = expanded(argv[1:])
    for argument in arguments:
        name = argument.partition("=")[0]
        if name.startswith("-") and len(name) > _LONGEST_NAME:  # absl compares it with all others
            raise UserError(f"Unknown command line flag of {len(name)} characters: {name[:40]}...")
    if rest := values([argv[0], *arguments])[1:]:
        raise UserError(f"{rest[0]!r} is no flag. Every option is one, as --name=value.")


def parsed(options: type, values: flags.FlagValues = flags.FLAGS) -> Any:
    """Makes the record from the parsed flags; UserError for a value out of its range.

    The parts of a recipe are set, but for those that were given.
    """
    flag_names = [entry.flag for entry in entries(options())]
    found = with_options(options(), **{name: getattr(values, name) for name in flag_names})
    check(found)
    if not getattr(found, "recipe", ""):
        return found
    from memr1_jax.training.recipe import with_recipe

    return with_recipe(found, [name for name in flag_names if values[name].present])


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
            read_flags(argv)

    def work(_):
        logging.set_verbosity(logging.WARNING)  # orbax reports every file at INFO
        with _sentences():
            main(parsed(options))

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
