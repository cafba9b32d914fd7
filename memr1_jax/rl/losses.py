"""Loss terms: clipped surrogate, KL penalty and entropy bonus of the policy, loss of the critic.

Every term is a weighted sum over tokens, and the weights use counts of the *whole* mini-batch. The
sum over micro-batches is therefore the loss of the whole, and so is its gradient:

    whole = denominators(mask)                          # before the split
    terms = sum over micro-batches of policy_loss(..., denominators=whole)
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from memr1_jax.rl.kl import kl_estimate
from memr1_jax.rl.means import Mean, masked_mean

Tokens = Float[Array, "... R"]  # a number for each token of each response
Mask = Shaped[Array, "... R"]  # 1 on the response up to and including the end token
Scalar = Float[Array, ""]

RATIOS = ("token", "sequence")


@flax.struct.dataclass
class Denominators:
    """Counts of the whole mini-batch that a loss is divided by."""

    tokens: Scalar  # unmasked tokens
    sequences: Scalar  # sequences with at least one unmasked token
    scale: Scalar  # fixed length that `seq-mean-token-sum-norm` divides by


@flax.struct.dataclass
class LossTerms:
    """A loss and its metrics; all leaves add over micro-batches and over terms."""

    loss: Scalar
    metrics: dict[str, Mean]

    def add(self, other: "LossTerms") -> "LossTerms":
        """Adds both losses, with the metrics of both."""
        metrics = dict(self.metrics)
        for name, mean in other.metrics.items():
            metrics[name] = metrics[name].add(mean) if name in metrics else mean
        return LossTerms(self.loss + other.loss, metrics)


def denominators(mask: Mask, scale: float | None = None) -> Denominators:
    """Counts tokens and sequences of a whole mini-batch, before it is split into micro-batches.

    Args:
        mask: 1 on the response up to and including the end token.
        scale: divisor of `seq-mean-token-sum-norm` (arXiv 2503.20783); by default R.
    """
    mask = mask.astype(bool)
    # At least 1: an empty mini-batch has loss 0, not 0 / 0.
    return Denominators(
        tokens=jnp.maximum(mask.sum().astype(jnp.float32), 1.0),
        sequences=jnp.maximum(mask.any(-1).sum().astype(jnp.float32), 1.0),
        scale=jnp.float32(mask.shape[-1] if scale is None else scale),
    )


def _sequence_means(values: Tokens, mask: Mask) -> Float[Array, "..."]:
    return values.sum(-1) / jnp.maximum(mask.sum(-1), 1)


# From token values that are 0 where they are masked, the mask, and the counts of the whole.
AGGREGATIONS = {
    "token-mean": lambda x, mask, of: x.sum() / of.tokens,
    "token-sum": lambda x, mask, of: x.sum(),
    "seq-mean-token-sum": lambda x, mask, of: x.sum() / of.sequences,
    "seq-mean-token-sum-norm": lambda x, mask, of: x.sum() / (of.sequences * of.scale),
    "seq-mean-token-mean": lambda x, mask, of: _sequence_means(x, mask).sum() / of.sequences,
}


def aggregate(values: Tokens, mask: Mask, aggregation: str, denominators: Denominators) -> Scalar:
    """Sums token values into one scalar, by verl's names of the modes.

    - `token-mean`: sum over tokens / tokens;
    - `token-sum`: sum over tokens;
    - `seq-mean-token-sum`: sum over tokens / sequences;
    - `seq-mean-token-sum-norm`: sum over tokens / sequences / scale, as TRL's Dr.GRPO loss. verl's
      first form of it, which its forks keep, divides by the scale alone;
    - `seq-mean-token-mean`: sum over sequences of their token means / sequences.

    Args:
        values: of the tokens.
        mask: of the tokens that count.
        aggregation: one of `AGGREGATIONS`.
        denominators: counts of the whole mini-batch.

    Returns:
        This part's share of the whole.

    Raises:
        ValueError: for an unknown aggregation.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(
            f"Unknown aggregation {aggregation!r}: choose one of {', '.join(AGGREGATIONS)}."
        )
    mask = mask.astype(bool)
    return AGGREGATIONS[aggregation](jnp.where(mask, values, 0.0), mask, denominators)


def policy_loss(
    logp: Tokens,
    old_logp: Tokens,
    advantages: Float[Array, "... #R"],
    mask: Mask,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    ratio: str = "token",
    weights: Tokens | float = 1.0,
    aggregation: str,
    denominators: Denominators,
) -> LossTerms:
    """Computes the clipped surrogate loss of PPO, GRPO and GSPO, with verl's definitions.

    The log-ratio is clamped to 20 in absolute value, the ratio clipped to
    [1 - clip_low, 1 + clip_high] (arXiv 1707.06347). Where the advantage is negative, `dual_clip`
    bounds the loss by -dual_clip * advantage (arXiv 1912.09729).

    With `ratio` "sequence" every token of a response has the geometric mean of its token ratios in
    value, and its own log-probability in gradient (GSPO's token form, arXiv 2507.18071, section
    4.3); the paper aggregates by "seq-mean-token-mean" and clips at a few 1e-4.

    Args:
        logp: current log-probabilities, at the sampling temperature.
        old_logp: of the policy that sampled them.
        advantages: of tokens or of whole responses; a constant to the gradient.
        mask: 1 on the response up to and including the end token.
        clip_low: how far below 1 the ratio may earn.
        clip_high: how far above 1.
        dual_clip: larger than 1, or None for no dual clip.
        ratio: one of `RATIOS`.
        weights: factors of the token losses, see `sampler_weights`; constants.
        aggregation: one of `AGGREGATIONS`.
        denominators: counts of the whole mini-batch.

    Returns:
        Loss, and the metrics `clip_fraction` and `clip_fraction_lower` (by the dual clip), shares
        of tokens, and `ppo_kl`, nats per token between the behaviour and the current policy.

    Raises:
        ValueError: for an unknown aggregation or ratio, or a dual clip of at most 1.
    """
    if dual_clip is not None and dual_clip <= 1.0:
        raise ValueError(f"dual_clip is {dual_clip}: it must be larger than 1, or None.")
    if ratio not in RATIOS:
        raise ValueError(f"Unknown ratio {ratio!r}: choose one of {', '.join(RATIOS)}.")
    advantages = jax.lax.stop_gradient(advantages).astype(jnp.float32)
    logp = _masked(logp, mask)
    log_ratio = logp - jax.lax.stop_gradient(_masked(old_logp, mask))
    if ratio == "sequence":
        length = jnp.maximum(mask.astype(bool).sum(-1, keepdims=True), 1)
        mean = jax.lax.stop_gradient(log_ratio.sum(-1, keepdims=True) / length)
        log_ratio = mean + (logp - jax.lax.stop_gradient(logp))
    log_ratio = jnp.clip(log_ratio, -20.0, 20.0)
    importance = jnp.exp(log_ratio)
    plain = -advantages * importance
    clipped = -advantages * jnp.clip(importance, 1.0 - clip_low, 1.0 + clip_high)
    loss = jnp.maximum(plain, clipped)
    bounded = jnp.zeros_like(loss)
    if dual_clip is not None:
        bound = -dual_clip * advantages
        bounded = (loss > bound) & (advantages < 0)
        loss = jnp.where(bounded, bound, loss)
    return LossTerms(
        aggregate(loss * jax.lax.stop_gradient(weights), mask, aggregation, denominators),
        {
            "clip_fraction": masked_mean(clipped > plain, mask),
            "clip_fraction_lower": masked_mean(bounded, mask),
            "ppo_kl": masked_mean(-log_ratio, mask),
        },
    )


def sampler_weights(old_logp: Tokens, sampler_logp: Tokens, mask: Mask, cap: float) -> Tokens:
    """Computes truncated importance weights min(exp(old - sampler), cap), constants.

    Sampler and trainer compute the same policy with different arithmetic, so what was sampled is
    slightly off-policy; the weight corrects for it (F. Yao et al., "Your Efficient RL Framework
    Secretly Brings You Off-Policy RL Training", 2025; verl's token-level rollout correction).

    Args:
        old_logp: of the trainer before the update.
        sampler_logp: as the sampler gave them.
        mask: masked tokens get weight 1.
        cap: the largest weight, in that work 2.
    """
    gap = jnp.clip(_masked(old_logp, mask) - _masked(sampler_logp, mask), -20.0, 20.0)
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(gap), cap))


def kl_loss(
    logp: Tokens,
    ref_logp: Tokens,
    mask: Mask,
    *,
    kind: str,
    coefficient: Scalar | float,
    weights: Tokens | float = 1.0,
    aggregation: str,
    denominators: Denominators,
) -> LossTerms:
    """Computes the KL penalty as a loss term: coefficient * aggregated `kl_estimate`.

    Args:
        logp: current log-probabilities of the sampled tokens.
        ref_logp: a constant to the gradient.
        mask: of the tokens that count.
        kind: estimator, see `kl_estimate`; k1 has no gradient in expectation.
        coefficient: weight of the term.
        weights: factors of the token losses; constants.
        aggregation: one of `AGGREGATIONS`.
        denominators: counts of the whole mini-batch.

    Returns:
        Loss, and the metric `kl`, nats per token.
    """
    ref_logp = jax.lax.stop_gradient(_masked(ref_logp, mask))
    kl = kl_estimate(_masked(logp, mask), ref_logp, kind)
    loss = coefficient * aggregate(kl * weights, mask, aggregation, denominators)
    return LossTerms(loss, {"kl": masked_mean(kl, mask)})


def entropy_bonus(
    entropy: Tokens,
    mask: Mask,
    *,
    coefficient: Scalar | float,
    weights: Tokens | float = 1.0,
    aggregation: str,
    denominators: Denominators,
) -> LossTerms:
    """Computes the entropy bonus as a loss term: -coefficient * aggregated entropy.

    Args:
        entropy: entropy of the policy's distribution at each response token, in nats.
        mask: of the tokens that count.
        coefficient: weight of the term.
        weights: factors of the token entropies; constants.
        aggregation: one of `AGGREGATIONS`.
        denominators: counts of the whole mini-batch.

    Returns:
        Loss, and the metric `entropy`, nats per token.
    """
    bonus = aggregate(entropy * weights, mask, aggregation, denominators)
    return LossTerms(-coefficient * bonus, {"entropy": masked_mean(entropy, mask)})


def value_loss(
    values: Tokens,
    old_values: Tokens,
    returns: Tokens,
    mask: Mask,
    *,
    clip: float | None,
    aggregation: str,
    denominators: Denominators,
) -> LossTerms:
    """Computes half the critic's squared error, clipped as in PPO, with verl's definitions.

    A value that moved by more than `clip` from its old one gains nothing by moving on: the loss is
    the larger of the errors of the value and of the clipped value.

    Args:
        values: of the current critic.
        old_values: of the critic before the update.
        returns: what the critic should have said.
        mask: of the tokens that count.
        clip: in units of reward, or None for the plain squared error.
        aggregation: one of `AGGREGATIONS`.
        denominators: counts of the whole mini-batch.

    Returns:
        Loss, and the metrics `value`, its mean, and `value_clip_fraction`, a share of tokens.
    """
    values = _masked(values, mask)
    old_values, returns = (jax.lax.stop_gradient(_masked(x, mask)) for x in (old_values, returns))
    error = jnp.square(values - returns)
    clipped = error
    if clip is not None:
        clipped = jnp.square(jnp.clip(values, old_values - clip, old_values + clip) - returns)
    loss = 0.5 * aggregate(jnp.maximum(error, clipped), mask, aggregation, denominators)
    metrics = {
        "value": masked_mean(values, mask),
        "value_clip_fraction": masked_mean(clipped > error, mask),
    }
    return LossTerms(loss, metrics)


def _masked(logp: Tokens, mask: Mask) -> Tokens:
    """Zeroes masked tokens, before any arithmetic: padding may hold -inf, with gradient NaN."""
    return jnp.where(mask.astype(bool), logp, 0.0).astype(jnp.float32)
