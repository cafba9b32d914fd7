"""Flags from option records: one absl flag for each option, and back.

`experiments/command_line.py` makes commands of them; `read_flags` reads flag files from Python.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from memr1_jax.errors import UserError
from memr1_jax.flag_files import expanded
from memr1_jax.options import Range, check, entries, with_options

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


def read_arguments(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
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


def given_options(options: type, values: flags.FlagValues = flags.FLAGS) -> tuple[Any, list[str]]:
    """Makes the record from parsed flags, and lists the flags that were given."""
    names = [entry.flag for entry in entries(options())]
    found = with_options(options(), **{name: getattr(values, name) for name in names})
    return found, [name for name in names if values[name].present]


def read_flags(options: type, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Makes a record from arguments such as `--flagfile=FILE`, and lists the flags that they give.

    Raises:
      UserError: an argument is no flag of the record, or a value is none of that flag.
    """
    values = flags.FlagValues()
    define_flags(options, values)
    try:
        read_arguments(["", *arguments], values)
    except flags.Error as error:
        raise UserError(f"{error}") from error
    found, given = given_options(options, values)
    check(found)
    return found, given
