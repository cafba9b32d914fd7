"""The options that all updates share, and those of the policy's loss."""

import dataclasses
from collections.abc import Iterable

from memr1_jax.options import above, at_least, between, option
from memr1_jax.rl.kl import KL_ESTIMATES
from memr1_jax.rl.losses import AGGREGATIONS, RATIOS

KL_PLACEMENTS = ("reward", "loss")


def check_names(**chosen: tuple[str, Iterable[str]]) -> None:
    """Raises ValueError for the first option whose value is none of its names."""
    for name, (value, names) in chosen.items():
        if value not in names:
            raise ValueError(f"Unknown {name} {value!r}: choose one of {', '.join(names)}.")


@dataclasses.dataclass(frozen=True)
class UpdateOptions:
    """Set how a rollout is sampled and cut into optimiser steps, in every way of learning.

    Static under `jit`, as are all options of an update. Defaults are Memory-R1's where it speaks
    (temperature 1, group of 5 seen in its run names), else verl's.
    """

    group: int = option(5, "Samples a prompt.", within=at_least(1))
    temperature: float = option(1.0, "Sampling temperature.", within=between(0.001, 1000))
    aggregation: str = option("token-mean", "How token losses are averaged.", tuple(AGGREGATIONS))
    epochs: int = option(1, "Passes over a rollout.", within=at_least(1))
    mini_batches: int = option(1, "Optimiser steps a pass.", within=at_least(1))
    micro_batches: int = option(
        1, "Parts that a mini-batch is split into for the gradient.", within=at_least(1)
    )
    logit_chunk: int = option(128, "Positions whose logits are held at once.", within=at_least(1))

    def __post_init__(self):
        """Refuses names that mean nothing; raises ValueError."""
        check_names(aggregation=(self.aggregation, AGGREGATIONS))

    @property
    def parts(self) -> int:
        """Counts the micro-batches that a rollout is cut into."""
        return self.mini_batches * self.micro_batches

    @property
    def single_step(self) -> bool:
        """Tells that one optimiser step follows a rollout, which is then exactly on-policy."""
        return self.epochs == self.mini_batches == 1


@dataclasses.dataclass(frozen=True)
class PolicyOptions(UpdateOptions):
    """Set the policy's loss, which GRPO and PPO share."""

    clip_low: float = option(0.2, "Clip range of the ratio below 1.", within=between(0, 1))
    clip_high: float = option(
        0.2, "Clip range of the ratio above 1; DAPO: 0.28.", within=at_least(0)
    )
    dual_clip: float | None = option(
        None, "Bound of the loss at negative advantages; none: no bound.", within=above(1)
    )
    ratio: str = option("token", "Ratio of a token, or of its sequence (GSPO).", RATIOS)
    sampler_cap: float | None = option(
        None,
        "Cap of importance weights between trainer and sampler; none: no such weights.",
        within=above(0),
    )
    kl_weight: float = option(
        0.001, "Weight of the KL penalty; 0: no reference pass.", within=at_least(0)
    )
    kl_kind: str = option("k3", "Estimator of a KL loss.", tuple(KL_ESTIMATES))
    kl_placement: str = option(
        "reward",
        "Where the KL penalty enters: the reward, where it is subtracted after normalising, so that"
        " outcomes alone are divided by their deviation; or the loss.",
        KL_PLACEMENTS,
    )
    entropy_weight: float = option(0.0, "Weight of the entropy bonus.", within=at_least(0))
    demonstration_weight: float = option(
        0.0,
        "Weight of the negative log-likelihood of demonstrations, one a row of the update, in the"
        " loss; 0: none. See agents/demonstrations.py.",
        within=at_least(0),
    )
    mask_truncated: bool = option(False, "Leave responses that were cut off out of the loss.")

    def __post_init__(self):
        """Refuses names that mean nothing; raises ValueError."""
        super().__post_init__()
        check_names(
            kl_kind=(self.kl_kind, KL_ESTIMATES),
            kl_placement=(self.kl_placement, KL_PLACEMENTS),
            ratio=(self.ratio, RATIOS),
        )

    @property
    def penalises_reward(self) -> bool:
        """Tells that the KL penalty is part of the reward."""
        return bool(self.kl_weight) and self.kl_placement == "reward"
