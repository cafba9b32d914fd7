"""Rewards of responses: outcomes, and on request their form, the size of the bank and its growth.

Axis letters: B prompts or episodes, G samples a prompt, T turns of an episode, M slots of a bank,
E retrieval width.
"""

import dataclasses
import hashlib
import inspect

import jax
import jax.numpy as jnp

from memr1_jax.agents.answer import Verdict
from memr1_jax.agents.manager import Report
from memr1_jax.agents.outcomes import (
    JUDGE,
    OF_BANKS,
    OUTCOMES,
    Outcome,
    Part,
    name_of,
    parse_outcomes,
)
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import MemoryBank, bank_size
from memr1_jax.options import at_least, option
from memr1_jax.text.normalize import Words

SAME_TEXT = 0.9  # cosine of two memories that say the same, whatever the order of their words


@dataclasses.dataclass(frozen=True)
class RewardOptions:
    """Set what a response earns.

    The default is exact match alone (Memory-R1, section 3.3). Static under `jit`.
    """

    outcome: str = option(
        "exact_match",
        f"What an answer earns: {', '.join(OUTCOMES)}, or a function of one's own as"
        f" package.module:function (agents/outcomes.py); a manager's bank: {', '.join(OF_BANKS)}."
        " Several are added by weight, as recall:1,exact_match:0.5.",
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
    growth_weight: float = option(
        0.0,
        "Price of the memories that a manager adds, as a share of the facts it was told, times the"
        " outcome; one that repeats another counts twice. Subtracted after normalising, as the KL"
        " penalty is, so that a group of equal outcomes is moved by the price alone.",
        within=at_least(0),
    )
    growth_free: float = option(
        0.0, "Share of the facts told that may be added at no price.", within=at_least(0)
    )

    function: Outcome | None = dataclasses.field(default=None, repr=False)  # the user's own
    parts: tuple[Part, ...] = dataclasses.field(init=False, repr=False)  # what `outcome` says

    def __post_init__(self):
        """Refuses an unknown outcome; one of the user's own is imported and tried."""
        parts = parse_outcomes(self.outcome, self.function)
        object.__setattr__(self, "parts", parts)
        own = [part.function for part in parts if part.own]
        object.__setattr__(self, "function", own[0] if own else None)

    @property
    def own(self) -> bool:
        """Says whether an outcome is a function of the user's own."""
        return any(part.own for part in self.parts)

    @property
    def judged(self) -> bool:
        """Says whether a judge gives an outcome."""
        return bool(self.weight_of(JUDGE))

    @property
    def answer_weight(self) -> float:
        """Sums the weights of the outcomes of an answer; 0 where none is read."""
        return sum(part.weight for part in self.parts if not part.of_banks)

    def weight_of(self, name: str) -> float:
        """Returns the weight of an outcome, 0 where it is not one."""
        return sum(part.weight for part in self.parts if part.name == name)

    def with_function(self, function: Outcome) -> "RewardOptions":
        """Returns the options with an outcome given as a function.

        Raises:
          UserError: it cannot be traced, or does not return one number.
        """
        if not callable(function):
            raise UserError(f"reward={function!r} is no function. Pass a name as --reward instead.")
        return dataclasses.replace(self, outcome=name_of(function), function=function)

    def digest(self) -> str:
        """Returns a digest of the source of the user's own outcomes."""
        sources = "".join(_source(part) for part in self.parts if part.own)
        return hashlib.sha256(sources.encode()).hexdigest()[:32]


def _source(part: Part) -> str:
    try:
        return inspect.getsource(part.function)  # type: ignore[arg-type]
    except (OSError, TypeError):  # typed into an interpreter
        return part.name


def outcome_of(reward: RewardOptions, answer: Words, gold: Words, report: Report) -> jax.Array:
    """Returns the outcomes of one answer by weight, a float32 scalar; 0 of a judge's."""
    total = jnp.float32(0)
    for part in reward.parts:
        if part.function is not None:
            found = part.function(answer, gold, report)
            total += part.weight * jnp.asarray(found, jnp.float32)
    return total


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


def growth_price(
    reward: RewardOptions,
    before: MemoryBank,
    after: MemoryBank,
    told: jax.Array,
    worth: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns what the growth of banks costs, and values of it that are metrics.

    The price is a share of the facts told, times the worth of the outcome: edits that lead to no
    right answer cost nothing, so that storing nothing never earns anything by itself.

    Args:
      reward: the weights.
      before: banks, leaves `[*rows, M, ...]`.
      after: the same banks after the edits.
      told: `[*rows]`, the facts that the edits were about.
      worth: `[*rows]` in [0, 1].
    """
    added = jnp.maximum(bank_size(after) - bank_size(before), 0)
    repeated = repeats(before, after)
    share = (added + repeated) / jnp.maximum(told, 1)
    price = reward.growth_weight * jnp.maximum(share - reward.growth_free, 0.0) * worth
    return price, {"added": added, "repeated": repeated, "growth_price": price}


def repeats(before: MemoryBank, after: MemoryBank) -> jax.Array:
    """Counts the texts written between two banks that another memory has too: `[*rows]`.

    If two new ones are the same, the second counts.
    """
    norm = jnp.linalg.norm(after.key, axis=-1, keepdims=True)
    key = after.key / jnp.maximum(norm, 1e-6)
    same = jnp.einsum("...me,...ne->...mn", key, key) > SAME_TEXT
    written = after.alive & (~before.alive | (after.key != before.key).any(-1))
    slot = jnp.arange(after.alive.shape[-1])
    earlier = ~written[..., None, :] | (slot < slot[:, None])
    other = after.alive[..., None, :] & (slot != slot[:, None])
    return jnp.sum(written & (same & earlier & other).any(-1), axis=-1, dtype=jnp.int32)
