"""What a response earns: the outcome, and on request its form and the size of the bank.

Axis letters: B prompts or episodes, G samples a prompt, T turns of an episode.
"""

import dataclasses

import jax
import jax.numpy as jnp

from memr1_jax.agents.answer import Verdict
from memr1_jax.agents.manager import Report
from memr1_jax.errors import UserError
from memr1_jax.options import at_least, option

OUTCOMES = ("exact_match", "token_f1", "contains", "judge")


@dataclasses.dataclass(frozen=True)
class RewardOptions:
    """Set what a response earns.

    The default is exact match alone (Memory-R1, section 3.3). Static under `jit`.
    """

    outcome: str = option("exact_match", "What an answer earns.", OUTCOMES, flag="reward")
    outcome_weight: float = option(1.0, "Weight of --reward.", within=at_least(0))
    format_weight: float = option(
        0.0, "Reward of output in the form that was asked for.", within=at_least(0)
    )
    size_weight: float = option(
        0.0, "Penalty of a manager for the filled share of its bank.", within=at_least(0)
    )
    size_free: int = option(0, "Memories that cost nothing.", within=at_least(0))

    def __post_init__(self):
        """Refuses an outcome that nobody computes."""
        if self.outcome not in OUTCOMES:
            raise UserError(f"There is no reward named {self.outcome!r}; choose one of {OUTCOMES}.")


def answer_reward(
    reward: RewardOptions, outcome: jax.Array, verdict: Verdict
) -> dict[str, jax.Array]:
    """The weighted parts of an answer's reward, which add up to it.

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
    """The weighted parts of a manager's reward, which add up to it.

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
    """The weighted parts of a whole episode's reward, which add up to it.

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
