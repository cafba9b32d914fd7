"""Records read back from JSON: dataclasses whose fields have the types that they say."""

import dataclasses
import types
import typing
from typing import Any


def typed(kind: Any, value: Any, place: str = "it") -> Any:
    """Returns a value of JSON as what `dataclasses.asdict` made it from.

    Args:
      kind: a dataclass, a scalar type, a union, or a `tuple`, `list` or `dict[str, ...]` of such.
      value: what JSON holds. Fields with a default may be absent; a whole number is a float too.
      place: what the value is called in messages.

    Raises:
      ValueError: the value, or one within it, is of another type; the message names its place.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, _of(dict, value, place), place)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _one_of(parts, value, place)
    if origin is tuple and parts[-1] is not Ellipsis:
        if len(_of(list, value, place)) != len(parts):
            raise ValueError(f"{place} has not {len(parts)} elements")
        return tuple(typed(*each, f"{place}[]") for each in zip(parts, value, strict=True))
    if origin in (tuple, list):
        return origin(typed(parts[0], one, f"{place}[]") for one in _of(list, value, place))
    if origin is dict:
        found = _of(dict, value, place)
        return {key: typed(parts[1], one, f"{place}.{key:.80}") for key, one in found.items()}
    if kind is float and type(value) is int:
        return float(value)
    return _of(kind, value, place)


def _record(kind: type, value: dict, place: str) -> Any:
    hints = typing.get_type_hints(kind)
    if unknown := sorted(value.keys() - hints.keys()):
        raise ValueError(f"{place} has an unknown field {unknown[0]:.80}")
    fields = {name: typed(hints[name], one, f"{place}.{name}") for name, one in value.items()}
    absent = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in value and field.default is field.default_factory is dataclasses.MISSING
    ]
    if absent:
        raise ValueError(f"{place} has no field {absent[0]}")
    return kind(**fields)


def _one_of(kinds: tuple, value: Any, place: str) -> Any:
    for kind in kinds:
        try:
            return typed(kind, value, place)
        except ValueError:
            continue
    raise ValueError(f"{place} is {value!r:.80}")


def _of(kind: type, value: Any, place: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{place} is {value!r:.80}, not of the type {kind.__name__}")
    return value
