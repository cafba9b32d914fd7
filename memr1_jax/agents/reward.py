"""Rewards of responses: the outcome, and on request its form and the size of the bank.

An outcome is a pure JAX function of one answer, traced into the compiled step:

    def brief(answer: Words, gold: Words, report: Report) -> jax.Array:
        return contains(answer, gold) - 0.05 * answer.count

`Words` (`text/normalize.py`) are two hashes of each normalised word, a count and an overflow; the
functions of `text/match.py` compare them. `Report` (`agents/manager.py`) counts what the manager
wrote, one response or a whole episode; in the training of the Answer Agent all counts are 0.

Axis letters: B prompts or episodes, G samples a prompt, T turns of an episode, A words.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import jax
import jax.numpy as jnp

from memr1_jax.agents.answer import Verdict
from memr1_jax.agents.manager import Report
from memr1_jax.errors import UserError
from memr1_jax.options import at_least, option
from memr1_jax.text.match import contains, exact_match, token_f1
from memr1_jax.text.normalize import Words

Outcome: TypeAlias = Callable[[Words, Words, Report], jax.Array]

JUDGE = "judge"  # the one outcome that is a model's, see `agents/judge.py`
OUTCOMES: Mapping[str, Outcome | None] = MappingProxyType(
    {
        "exact_match": lambda answer, gold, report: exact_match(answer, gold),
        "token_f1": lambda answer, gold, report: token_f1(answer, gold),
        "contains": lambda answer, gold, report: contains(answer, gold),
        JUDGE: None,
    }
)


@dataclasses.dataclass(frozen=True)
class RewardOptions:
    """Set what a response earns.

    The default is exact match alone (Memory-R1, section 3.3). Static under `jit`.
    """

    outcome: str = option(
        "exact_match",
        f"What an answer earns: {', '.join(OUTCOMES)}, or a function of one's own as"
        " package.module:function (agents/reward.py).",
        flag="reward",
    )
    outcome_weight: float = option(1.0, "Weight of --reward.", within=at_least(0))
    format_weight: float = option(
        0.0, "Reward of output in the form that was asked for.", within=at_least(0)
    )
    size_weight: float = option(
        0.0, "Penalty of a manager for the filled share of its bank.", within=at_least(0)
    )
    size_free: int = option(0, "Memories that cost nothing.", within=at_least(0))

    function: Outcome | None = dataclasses.field(default=None, repr=False)  # what `outcome` names

    def __post_init__(self):
        """Refuses an unknown outcome; one of the user's own is imported and tried."""
        if self.outcome in OUTCOMES:
            function = OUTCOMES[self.outcome]
        elif self.function is not None and name_of(self.function) == self.outcome:
            function = self.function
        else:
            function = _imported(self.outcome)
        if self.own:
            _check_shape(self.outcome, function)
        object.__setattr__(self, "function", function)

    @property
    def own(self) -> bool:
        """Says whether the outcome is a function of the user's own."""
        return self.outcome not in OUTCOMES

    def with_function(self, function: Outcome) -> "RewardOptions":
        """Returns the options with an outcome given as a function.

        Raises:
          UserError: it cannot be traced, or does not return one number.
        """
        if not callable(function):
            raise UserError(f"reward={function!r} is no function. Pass a name as --reward instead.")
        return dataclasses.replace(self, outcome=name_of(function), function=function)

    def digest(self) -> str:
        """Returns a word for the source of an outcome of the user's own."""
        try:
            source = inspect.getsource(self.function)
        except (OSError, TypeError):  # typed into an interpreter
            source = self.outcome
        return hashlib.sha256(source.encode()).hexdigest()[:32]


def name_of(function: Outcome) -> str:
    """Returns `package.module:function`."""
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}:{kind.__qualname__}"


@functools.cache
def _imported(name: str) -> Outcome:
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(
            f"There is no reward named {name!r}; choose one of {', '.join(OUTCOMES)}, or name a"
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


def outcome_of(reward: RewardOptions, answer: Words, gold: Words, report: Report) -> jax.Array:
    """Returns the outcome of one answer, a float32 scalar; 0 where a judge gives it elsewhere."""
    if reward.function is None:
        return jnp.float32(0)
    return jnp.asarray(reward.function(answer, gold, report), jnp.float32)


def no_report() -> Report:
    """Makes the report of an answer that no manager's response led to."""
    return Report(*[jnp.float32(0)] * len(dataclasses.fields(Report)))


def answer_reward(
    reward: RewardOptions, outcome: jax.Array, verdict: Verdict
) -> dict[str, jax.Array]:
    """Returns the weighted parts of an answer's reward, which add up to it.

    The form is right where the answer was marked as asked for.

    Args:
      reward: the weights.
      outcome: `[B, G]`.
      verdict: leaves `[B, G]`.
    """
    return {
        "reward_outcome": reward.outcome_weight * outcome,
        "reward_format": reward.format_weight * verdict.labelled,
    }


def manager_reward(
    reward: RewardOptions, outcome: jax.Array, report: Report, memories: jax.Array, capacity: int
) -> dict[str, jax.Array]:
    """Returns the weighted parts of a manager's reward, which add up to it.

    The form is right where the output was readable as a whole. The size is the share of the bank
    that is filled beyond the free memories.

    Args:
      reward: the weights.
      outcome: `[B, G]`, the mean over the turn's questions.
      report: leaves `[B, G]`.
      memories: `[B, G]`, those alive after the edits.
      capacity: slots of a bank.
    """
    return {
        "reward_outcome": reward.outcome_weight * outcome,
        "reward_format": reward.format_weight * _readable(report),
        "reward_size": -reward.size_weight * _excess(reward, memories, capacity),
    }


def episode_reward(
    reward: RewardOptions,
    outcome: jax.Array,
    report: Report,
    present: jax.Array,
    memories: jax.Array,
    capacity: int,
) -> dict[str, jax.Array]:
    """Returns the weighted parts of a whole episode's reward, which add up to it.

    Form and size as for one response: means over the turns, and over both speakers' banks.

    Args:
      reward: the weights.
      outcome: `[B]`, the mean over the questions at the end.
      report: leaves `[B, T]`, of the turns.
      present: `[B, T]`, which turns there are.
      memories: `[B, 2]`, those alive at the end.
      capacity: slots of a bank.
    """
    readable = (_readable(report) & present).sum(-1) / jnp.maximum(present.sum(-1), 1)
    return {
        "reward_outcome": reward.outcome_weight * outcome,
        "reward_format": reward.format_weight * readable,
        "reward_size": -reward.size_weight * _excess(reward, memories, capacity).mean(-1),
    }


def _readable(report):
    return (report.invalid == 0) & (report.skipped == 0) & (report.salvaged == 0)


def _excess(reward, memories, capacity):
    return jnp.maximum(memories - reward.size_free, 0) / capacity
