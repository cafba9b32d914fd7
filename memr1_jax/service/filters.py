"""Filters of memories in mem0's language: a scope, and conditions on what is found in it.

A filter is a dictionary of conditions that all hold. A condition is a value, a list of values,
`"*"` (there is one) or `{operator: value}`; `AND`, `OR` and `NOT` take lists of filters.
"""

import dataclasses
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from memr1_jax.service import clock
from memr1_jax.service.errors import Refused
from memr1_jax.service.messages import clean
from memr1_jax.service.scope import IDS, Scope

_OWN = {  # names of a memory's own fields; all others are looked up in its metadata
    "memory": "text",
    "text": "text",
    "speaker": "speaker",
    "role": "role",
    "actor_id": "actor_id",
    "expiration_date": "expires",
    **{name: name for name in ("created_at", "updated_at", "event_time", *IDS)},
}
_TIMES = ("created_at", "updated_at", "event_time")
_DEEPEST = 16
_Condition = Callable[[Mapping[str, Any]], bool]  # of a memory's state


@dataclasses.dataclass(frozen=True)
class Test:
    """The test that a memory's state must pass; where it names one speaker, nobody else passes."""

    passes: _Condition
    speaker: str | None = None

    def __call__(self, state: Mapping[str, Any]) -> bool:
        """Tells whether a state passes."""
        return self.passes(state)


def scope_of(filters: Mapping[str, Any] | None, **ids: Any) -> Scope:
    """Returns whose memories a filter is about: the ids that it fixes to one value each.

    Args:
      filters: the filter; ids may stand within `AND`.
      **ids: ids that were given as well.

    Raises:
      Refused: no id has one value, or one has two.
    """
    found = {name: value for name, value in ids.items() if value is not None}
    for name, value in _fixed(filters or {}, IDS):
        if str(found.setdefault(name, value)).strip() != str(value).strip():
            raise Refused(f"The filters name two values of {name}: {found[name]!r} and {value!r}.")
    return Scope.of(**found)


def matcher(filters: Mapping[str, Any] | None) -> Test:
    """Returns the test that a memory's state must pass.

    Raises:
      Refused: the filter is not of this language.
    """
    names = [v for _, v in _fixed(filters or {}, ("speaker",)) if isinstance(v, str)]
    return Test(_all(filters or {}, 0), clean(names[0]) if names else None)


def _fixed(filters: Any, names: Collection[str], depth: int = 0):
    """Goes through those of the names that a filter fixes to one value each."""
    _checked(filters, depth)
    for name, condition in filters.items():
        if name == "AND" and isinstance(condition, list):
            for part in condition:
                yield from _fixed(part, names, depth + 1)
        elif name in names:
            if isinstance(condition, Mapping) and set(condition) == {"eq"}:
                condition = condition["eq"]
            if not isinstance(condition, (Mapping, list)) and condition not in ("*", None):
                yield name, condition


def _all(filters: Any, depth: int) -> _Condition:
    _checked(filters, depth)
    tests = [_condition(name, value, depth) for name, value in filters.items()]
    return lambda state: all(test(state) for test in tests)


def _checked(filters: Any, depth: int) -> None:
    if not isinstance(filters, Mapping) or not all(isinstance(name, str) for name in filters):
        raise Refused(f"A filter is an object of conditions by name, not {filters!r}.")
    if depth > _DEEPEST:
        raise Refused(f"These filters are nested more than {_DEEPEST} deep.")


def _condition(name: str, value: Any, depth: int) -> _Condition:
    if name in ("AND", "OR", "NOT"):
        if not isinstance(value, list):
            raise Refused(f"{name} takes a list of filters, not {value!r}.")
        parts = [_all(part, depth + 1) for part in value]
        if name == "AND":
            return lambda state: all(part(state) for part in parts)
        some = lambda state: any(part(state) for part in parts)  # noqa: E731
        return some if name == "OR" else lambda state: not some(state)
    if name == "metadata" and isinstance(value, Mapping):
        return _all(value, depth + 1)
    if name in IDS and not isinstance(value, (Mapping, list)) and value != "*":
        value = None if value is None else str(value).strip()  # as `Scope` keeps it
    tests = [_test(name, *part) for part in _operations(value)]
    return lambda state: all(test(_field(state, name)) for test in tests)


def _operations(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return [("in", value)] if isinstance(value, list) else [("eq", value)]


def _field(state: Mapping[str, Any], name: str) -> Any:
    if name in _OWN:
        return state.get(_OWN[name]) or None
    return state["metadata"].get(name)


def _test(name: str, operation: str, value: Any) -> Callable[[Any], bool]:
    if operation not in _OPERATIONS:
        raise Refused(
            f"{operation!r} is no operator of a filter. There are {', '.join(_OPERATIONS)}."
        )
    if operation in ("in", "nin"):
        if not isinstance(value, list):
            raise Refused(f"{operation} of {name} takes a list, not {value!r}.")
    elif name in _TIMES and value != "*" and "contains" not in operation:
        value = clock.read(value, name)
    compare = _OPERATIONS[operation]

    def holds(found: Any) -> bool:
        try:
            return bool(compare(found, value))
        except TypeError:  # a text and a number
            return False

    return holds


def _equal(found: Any, value: Any) -> bool:
    if value == "*":
        return found is not None
    return found == value and isinstance(found, bool) == isinstance(value, bool)


def _contains(found: Any, value: Any) -> bool:
    return isinstance(found, (str, list)) and value in found


def _icontains(found: Any, value: Any) -> bool:
    return isinstance(found, str) and str(value).casefold() in found.casefold()


_OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": _equal,
    "ne": lambda found, value: not _equal(found, value),
    "in": lambda found, values: any(_equal(found, value) for value in values),
    "nin": lambda found, values: not any(_equal(found, value) for value in values),
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "contains": _contains,
    "icontains": _icontains,
}
