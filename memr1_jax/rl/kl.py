"""KL divergence to the reference policy, estimated on sampled tokens."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def _absolute(difference: jax.Array) -> jax.Array:
    # jnp.abs has gradient 1 at 0, and on-policy every difference may be 0.
    return difference * jax.lax.stop_gradient(jnp.sign(difference))


def _square(difference: jax.Array) -> jax.Array:
    return 0.5 * jnp.square(difference)


def _low_variance(difference: jax.Array) -> jax.Array:
    exponent = jnp.clip(-difference, -20.0, 20.0)
    return jnp.clip(jnp.exp(exponent) - exponent - 1.0, -10.0, 10.0)


def _straight_through(forward: Callable, backward: Callable) -> Callable:
    """Joins the value of one estimator with the gradient of another."""

    def estimate(difference):
        value, slope = forward(difference), backward(difference)
        # The bracket is exactly 0 in value.
        return jax.lax.stop_gradient(value) + (slope - jax.lax.stop_gradient(slope))

    return estimate


KL_ESTIMATES = {
    "k1": lambda difference: difference,
    "abs": _absolute,
    "k2": _square,
    "k3": _low_variance,
    "k1+": _straight_through(lambda difference: difference, _square),
    "k3+": _straight_through(_low_variance, _square),
}


def kl_estimate(logp: jax.Array, ref_logp: jax.Array, kind: str) -> jax.Array:
    """Estimates KL(policy || reference) at each token from log-probabilities of sampled tokens.

    With d = logp - ref_logp (J. Schulman, "Approximating KL Divergence", 2020; clamps as in verl):

    - `k1`: d. Unbiased, but as a loss term its expected gradient on-policy is **zero**;
    - `abs`: |d|;
    - `k2`: d^2 / 2. As a loss term its expected gradient is that of KL(policy || reference);
    - `k3`: exp(-d) - 1 + d, with -d clamped to 20 and the result to 10 in absolute value (verl's
      `low_var_kl`). As a loss term its expected gradient is that of KL(reference || policy);
    - `k1+`, `k3+`: the value of k1 or k3 with the gradient of k2 (straight-through).

    Args:
        logp: [..., R], at the sampling temperature.
        ref_logp: [..., R], at the same temperature.
        kind: one of `KL_ESTIMATES`.

    Returns:
        [..., R] float32.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in KL_ESTIMATES:
        raise ValueError(f"Unknown KL estimate {kind!r}: choose one of {', '.join(KL_ESTIMATES)}.")
    return KL_ESTIMATES[kind](logp.astype(jnp.float32) - ref_logp.astype(jnp.float32))


def kl_in_reward(
    rewards: jax.Array,
    old_logp: jax.Array,
    ref_logp: jax.Array,
    mask: jax.Array,
    coefficient: jax.Array | float,
) -> jax.Array:
    """Returns token rewards less the KL penalty: reward - coefficient * k1, 0 where masked.

    The penalty is a constant to the gradient (verl's KL in reward). Both log-probabilities come
    from the trainer: the sampler's rounding, unknown to the reference, would be paid
    for like a divergence.

    Args:
        rewards: [..., R], usually 0 but on the last token of a response.
        old_logp: [..., R], of the policy before the update.
        ref_logp: [..., R].
        mask: [..., R].
        coefficient: scalar, reward per nat.

    Returns:
        [..., R] float32.
    """
    penalised = rewards - coefficient * kl_estimate(old_logp, ref_logp, "k1")
    return jax.lax.stop_gradient(jnp.where(mask.astype(bool), penalised, 0.0))
