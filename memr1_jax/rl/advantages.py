"""Advantages from the outcomes of a group: GRPO, Dr.GRPO and RLOO.

`B` prompts in a batch, `G` samples per prompt, `R` response length.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

Scores = Float[Array, "... G"]


class Advantage(NamedTuple):
    """Compares the members of a group: by their scores, and by what is never divided.

    `divided` tells whether scores are divided by their deviation, for samples that have weights.
    """

    of_scores: Callable[[Scores], Scores]
    of_penalties: Callable[[Scores], Scores]
    divided: bool


def _centred(values: Scores) -> Scores:
    if values.shape[-1] == 1:
        return values
    return values - values.mean(-1, keepdims=True)


def _normalised(values: Scores) -> Scores:
    deviation = 1.0 if values.shape[-1] == 1 else values.std(-1, ddof=1, keepdims=True)
    return _centred(values) / (deviation + 1e-6)


def _leave_one_out(values: Scores) -> Scores:
    # s - mean of the others = (s - mean) * G / (G - 1).
    group = values.shape[-1]
    return _centred(values) * (group / max(group - 1, 1))


ADVANTAGES = {
    "grpo": Advantage(_normalised, _centred, divided=True),
    "dr_grpo": Advantage(_centred, _centred, divided=False),
    "rloo": Advantage(_leave_one_out, _leave_one_out, divided=False),
}


def _weighted(values: Scores, weights: Scores, divide: bool) -> Scores:
    total = jnp.maximum(weights.sum(-1, keepdims=True), 1e-6)
    centred = values - (weights * values).sum(-1, keepdims=True) / total
    if not divide:
        return centred
    variance = (weights * jnp.square(centred)).sum(-1, keepdims=True) / total
    return centred / (jnp.sqrt(variance) + 1e-6)


def group_advantages(
    scores: Shaped[Array, "B G"],
    kind: str = "grpo",
    penalties: Float[Array, "B G"] | None = None,
    weights: Float[Array, "B G"] | None = None,
) -> Float[Array, "B G"]:
    """Compares each sample with the other samples of its prompt.

    With mean m and standard deviation s (divisor G - 1) of the group:

    - `grpo`: (score - m) / (s + 1e-6) (arXiv 2402.03300; as in verl);
    - `dr_grpo`: score - m (arXiv 2503.20783; verl's GRPO without the division);
    - `rloo`: score minus the mean of the G - 1 others (arXiv 2402.14740; as in verl).

    A group of equal scores gets exactly 0: rounding noise divided by 1e-6 would otherwise pass for
    a signal. A group of one has nothing to compare with, so, as in verl, m = 0 and s = 1.

    Penalties are subtracted after normalising: each is compared with its group's mean (RLOO: with
    the mean of the others) and never divided by s. For `dr_grpo` and `rloo` that is the advantage
    of score - penalty. verl's `grpo` divides by the deviation of score - penalty, so that a group
    of equal outcomes turns a penalty of any size, rounding included, into advantages of about 1.

    Args:
        scores: outcomes alone; they decide which groups are flat.
        kind: one of `ADVANTAGES`.
        penalties: in units of the advantage, or None.
        weights: how much each sample counts, or None for all alike. Mean and deviation are then
            those of the distribution that the weights restore, without a correction for the size
            of the group, and `rloo` is `dr_grpo`.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in ADVANTAGES:
        raise ValueError(f"Unknown advantage {kind!r}: choose one of {', '.join(ADVANTAGES)}.")
    compare, scores = ADVANTAGES[kind], scores.astype(jnp.float32)
    if weights is not None:
        compare = compare._replace(
            of_scores=functools.partial(_weighted, weights=weights, divide=compare.divided),
            of_penalties=functools.partial(_weighted, weights=weights, divide=False),
        )
    informative = informative_groups(scores, weights)
    advantages = jnp.where(informative[..., None], compare.of_scores(scores), 0.0)
    if penalties is None:
        return advantages
    return advantages - compare.of_penalties(penalties.astype(jnp.float32))


def informative_groups(
    scores: Shaped[Array, "... G"], weights: Float[Array, "... G"] | None = None
) -> Bool[Array, "..."]:
    """Finds the prompts that teach something: samples scored differently, or there is one alone.

    Returns:
        A mask, and as a mean the share of groups with a learning signal.
    """
    if scores.shape[-1] == 1:
        return jnp.ones(scores.shape[:-1], bool)
    if weights is None:
        return scores.max(-1) != scores.min(-1)
    counts = weights > 0  # samples that were not drawn have no score
    highest = jnp.where(counts, scores, -jnp.inf).max(-1)
    return highest > jnp.where(counts, scores, jnp.inf).min(-1)


def score_variance(
    scores: Shaped[Array, "... G"], weights: Float[Array, "... G"] | None = None
) -> Float[Array, "..."]:
    """Returns the variance of each group's scores, exactly 0 for groups that teach nothing."""
    scores = scores.astype(jnp.float32)
    weights = jnp.ones_like(scores) if weights is None else weights
    centred = _weighted(scores, weights, divide=False)
    total = jnp.maximum(weights.sum(-1), 1e-6)
    variance = (weights * jnp.square(centred)).sum(-1) / total
    return jnp.where(informative_groups(scores, weights), variance, 0.0)


def last_token_rewards(
    rewards: Shaped[Array, "..."], mask: Shaped[Array, "... R"]
) -> Float[Array, "... R"]:
    """Puts the reward of each response on its last unmasked token; all other tokens get 0.

    Args:
        rewards: one outcome per response.
        mask: a response without any token gets no reward.
    """
    mask = mask.astype(bool)
    left = jnp.cumsum(mask[..., ::-1], axis=-1)[..., ::-1]  # tokens from here to the end
    return jnp.where(mask & (left == 1), rewards[..., None].astype(jnp.float32), 0.0)
