"""Options: frozen dataclasses whose fields carry a help text, a range and choices.

Flags are made from them (`flags.py`), and one check walks all of them. A record
may hold other records; their options are flags like its own:

    @dataclasses.dataclass(frozen=True)
    class PolicyOptions:
        \"\"\"Sets the loss of the policy.\"\"\"

        clip_low: float = option(0.2, "Clip range of the ratio below 1.", within=between(0, 1))

The record that declares an option is its group in `--help`: the class name without its ending, and
the first line of the docstring.
"""

import dataclasses
import functools
import inspect
import math
import numbers
import os
import pathlib
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from memr1_jax.errors import UserError

Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`, or above `low` alone where it is `excluded`."""

    low: float = -math.inf
    high: float = math.inf
    excluded: bool = False

    def __contains__(self, value: float) -> bool:
        """Says whether the range holds a number; NaN and infinity are in none."""
        above = self.low < value if self.excluded else self.low <= value
        return above and value <= self.high and -math.inf < value < math.inf

    def __str__(self) -> str:
        """Spells the words that complete "must be"."""
        if self.low == -math.inf:
            return "a finite number"
        if self.high < math.inf:
            return f"from {self.low:.10g} to {self.high:.10g}"
        if self.excluded:
            return f"above {self.low:g}"
        return f"at least {self.low:g}" if self.low else "0 or more"


def at_least(low: float) -> Range:
    """Makes the range of finite numbers from `low`."""
    return Range(low)


def above(low: float) -> Range:
    """Makes the range of finite numbers above `low`."""
    return Range(low, excluded=True)


def between(low: float, high: float) -> Range:
    """Makes the range from `low` to `high`, both included."""
    return Range(low, high)


_KINDS = {bool: bool, int: numbers.Integral, float: numbers.Real, str: str}
_KIND_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
FINITE = Range()
SEEDS = between(0, 2**31 - 1)


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    *,
    within: Range | None = None,
    flag: str = "",
    formerly: str = "",
) -> Any:
    """Makes a field of a record.

    Args:
      default: its default; None for a number that may be absent (annotated `float | None`).
      help: one sentence for `--help`.
      choices: the strings that it may be.
      within: the range that a number must be in.
      flag: its flag, where that has another name than the field.
      formerly: a flag's name in the version before, which is accepted with a warning.
    """
    metadata = {"help": help, "choices": choices, "within": within}
    metadata |= {"flag": flag, "formerly": formerly}
    return dataclasses.field(default=default, metadata=metadata)


def with_default(record: type, name: str, default: Any) -> Any:
    """Makes an inherited field again with another default, and with the same help and range."""
    return dataclasses.field(default=default, metadata=record.__dataclass_fields__[name].metadata)


class Entry(NamedTuple):
    """An option of a record, with the name of its flag, its value and the class that declares it.

    `optional` says whether None is a value.
    """

    flag: str
    value: Any
    kind: type
    optional: bool
    metadata: dict
    home: type

    @property
    def group(self) -> str:
        """Heading of the options in `--help` that the same class declares."""
        title = self.home.__name__.removesuffix("Options").removesuffix("Config")
        return f"{title}: {inspect.getdoc(self.home).partition(chr(10))[0].rstrip('.')}"


def entries(options: Any) -> Iterator[Entry]:
    """Yields the options of a record and of the records that it holds, in their order."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from entries(value)
        elif "help" in field.metadata:
            kinds = typing.get_args(field.type) or (field.type,)
            home = _homes(type(options))[field.name]
            flag = field.metadata["flag"] or field.name
            yield Entry(flag, value, kinds[0], type(None) in kinds, field.metadata, home)


@functools.cache
def _homes(record: type) -> dict[str, type]:
    """Maps the fields of a record to the classes that declare them first."""
    classes = record.__mro__  # bases come last, and win
    return {name: kind for kind in classes for name in inspect.get_annotations(kind)}


def flag_values(options: Any) -> dict[str, Any]:
    """Lists the values of a record by flag."""
    return {entry.flag: entry.value for entry in entries(options)}


def current_names(options: Any, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the keys of values that were stored by flag, where flags have new names now."""
    names = {entry.metadata["formerly"]: entry.flag for entry in entries(options)}
    return {names.get(name, name): value for name, value in stored.items()}


def changed_flags(options: Any) -> list[str]:
    """Lists the flags whose values are not their defaults."""
    defaults = flag_values(type(options)())
    return [flag for flag, value in flag_values(options).items() if value != defaults[flag]]


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """Spells values by flag as arguments of a command."""
    return [f"--{flag}={value}" for flag, value in values.items()]


def flags_text(options: Any) -> str:
    """Writes a record as a flag file."""
    return "".join(f"{argument}\n" for argument in as_flags(flag_values(options)))


def with_options(options: Record, **values: Any) -> Record:
    """Returns a record with other values, by flag; those of held records too.

    Raises:
      TypeError: there is no such flag.
    """
    if unknown := values.keys() - flag_values(options).keys():
        raise TypeError(f"{type(options).__name__} has no options {sorted(unknown)}.")
    return _changed(options, values)


def _changed(record, values):
    changes = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        flag = field.metadata.get("flag") or field.name
        if dataclasses.is_dataclass(value):
            changes[field.name] = _changed(value, values)
        elif flag in values and "help" in field.metadata:
            changes[field.name] = values[flag]
    return dataclasses.replace(record, **changes)


def check(options: Any) -> None:
    """Raises UserError for the first option whose value is of a wrong kind or out of its range."""
    for flag, value, kind, optional, metadata, _ in entries(options):
        choices, within = metadata["choices"], metadata["within"]
        if value is None and optional:
            continue
        if not isinstance(value, _KINDS[kind]) or (kind is not bool and isinstance(value, bool)):
            raise UserError(f"--{flag}={value!r} must be {_KIND_WORDS[kind]}.")
        if choices and value not in choices:
            raise UserError(f"--{flag}={value} must be one of {', '.join(map(repr, choices))}.")
        if within and value not in within:
            finite = "" if within == FINITE or value in FINITE else "a finite number, "
            absent = ", or none" if optional else ""
            raise UserError(f"--{flag}={value} must be {finite}{within}{absent}.")


def user_path(text: str | os.PathLike) -> pathlib.Path:
    """Reads a path that a user gave, with ~ for a home; UserError where ~ names nobody."""
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"The path {text} begins with the home of an unknown user.") from error
