"""Outcomes: the measures that a reward is a weighted sum of.

A measure reads an answer, or the bank that a manager leaves:

- of an answer: `exact_match`, `token_f1`, `contains`, a `judge`, or a function of one's own;
- of a bank, with the manager alone: `recall`, the share of a question's evidence among what
  retrieval returns; `fresh`, 1 less the share of what that evidence has replaced among it;
  `likelihood`, the mean log-probability of the gold answer's tokens under the frozen Answer Agent
  (MemPO's step reward, arXiv 2603.00680); `likelihood_gain`, the same less that of the bank before.
  None of them decodes an answer, and the first two ask no model.

An outcome of one's own is a pure JAX function of one answer, traced into the compiled step:

    def brief(answer: Words, gold: Words, report: Report) -> jax.Array:
        return contains(answer, gold) - 0.05 * answer.count

`Words` (`text/normalize.py`) are two hashes of each normalised word, a count and an overflow; the
functions of `text/match.py` compare them. `Report` (`agents/manager.py`) counts what the manager
wrote, one response or a whole episode; in the training of the Answer Agent all counts are 0.
"""

import dataclasses
import functools
import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from memr1_jax.agents.manager import Report
from memr1_jax.errors import UserError
from memr1_jax.text.match import contains, exact_match, token_f1
from memr1_jax.text.normalize import Words

Outcome: TypeAlias = Callable[[Words, Words, Report], jax.Array]

JUDGE = "judge"  # the one outcome of an answer that is a model's, see `agents/judge.py`
OUTCOMES: Mapping[str, Outcome | None] = MappingProxyType(
    {
        "exact_match": lambda answer, gold, report: exact_match(answer, gold),
        "token_f1": lambda answer, gold, report: token_f1(answer, gold),
        "contains": lambda answer, gold, report: contains(answer, gold),
        JUDGE: None,
    }
)
RECALL, FRESH, LIKELIHOOD, GAIN = "recall", "fresh", "likelihood", "likelihood_gain"
OF_BANKS = (RECALL, FRESH, LIKELIHOOD, GAIN)
NAMES = (*OUTCOMES, *OF_BANKS)


class Part(NamedTuple):
    """Describes a summand of a reward; `function` is None where a model or a bank gives it."""

    name: str
    weight: float
    function: Outcome | None

    @property
    def own(self) -> bool:
        """Says whether the function is the user's own."""
        return self.name not in NAMES

    @property
    def of_banks(self) -> bool:
        """Says whether a bank is measured, and no answer."""
        return self.name in OF_BANKS


def parse_outcomes(text: str, given: Outcome | None = None) -> tuple[Part, ...]:
    """Reads "recall:1,exact_match:0.5"; a weight that is not given is 1.

    Args:
      text: names and weights; a function of one's own is package.module:function.
      given: a function that needs no import.

    Raises:
      UserError: a name is not known, a weight makes no sense, or a function cannot be traced.
    """
    parts: list[Part] = []
    for item in text.split(","):
        name, weight = _weighted(item.strip())
        if not 0 < weight < math.inf:
            raise UserError(f"--reward={text}: the weight of {name} must be above 0.")
        if name in (part.name for part in parts):
            raise UserError(f"--reward={text} names {name} twice. Name it once.")
        parts.append(Part(name, weight, _function(name, given)))
    return tuple(parts)


def _weighted(item: str) -> tuple[str, float]:
    name, colon, weight = item.rpartition(":")
    try:
        return (name, float(weight)) if colon else (item, 1.0)
    except ValueError:
        return item, 1.0


def _function(name: str, given: Outcome | None) -> Outcome | None:
    if name in NAMES:
        return OUTCOMES.get(name)
    known = given is not None and name_of(given) == name
    function = given if known else _imported(name)
    _check_shape(name, function)
    return function


def name_of(function: Outcome) -> str:
    """Returns `package.module:function`."""
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}:{kind.__qualname__}"


@functools.cache
def _imported(name: str) -> Outcome:
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(
            f"There is no reward named {name!r}; choose one of {', '.join(NAMES)}, or name a"
            " function of your own as package.module:function."
        )
    if os.getcwd() not in sys.path:  # a console script looks in its own folder alone
        sys.path.append(os.getcwd())
    try:
        found = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except Exception as error:  # whatever the user's module does when it is imported
        raise UserError(
            f"--reward={name} cannot be imported ({type(error).__name__}: {error}). Write"
            " package.module:function, as it is imported in the folder where the command runs."
        ) from error
    if not callable(found):
        raise UserError(f"--reward={name} is no function but {found!r}.")
    return found


def _check_shape(name: str, function: Outcome) -> None:
    """Traces a function on shapes alone; UserError where it does not give one number."""
    words = Words(
        jax.ShapeDtypeStruct((8, 2), jnp.uint32),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((), bool),
    )
    counts = [jax.ShapeDtypeStruct((), jnp.float32)] * len(dataclasses.fields(Report))
    try:
        found = jax.eval_shape(function, words, words, Report(*counts))
    except Exception as error:  # whatever the user's function does when it is traced
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"--reward={name} cannot be compiled ({type(error).__name__}: {reason}). It is traced"
            " with (answer, gold, report): use jax.numpy, and jnp.where in place of if."
        ) from error
    if getattr(found, "shape", None) != () or found.dtype.kind not in "fiub":
        raise UserError(
            f"--reward={name} must return one number for one answer, but returns {found}."
        )
