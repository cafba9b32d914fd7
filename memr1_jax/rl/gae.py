"""Advantages from a critic: generalised advantage estimation over response tokens.

`B` prompts in a batch, `G` samples per prompt, `R` response length.
"""

import jax
import jax.numpy as jnp


def generalised_advantages(
    rewards: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[jax.Array, jax.Array]:
    """Computes advantages and returns of tokens (GAE, arXiv 1506.02438), skipping masked ones.

    With delta_t = r_t + gamma V_{t+1} - V_t, the advantage is delta_t + gamma lambda A_{t+1}. Here
    t + 1 means the next *unmasked* token, as in verl: a hole in the mask carries value and
    advantage across. After the last token both are 0.

    Args:
        rewards: [..., R].
        values: [..., R], of the critic before the update; constants to the gradient.
        mask: [..., R], 1 on the response up to and including the end token.
        gamma: discount per token.
        gae_lambda: 1 for the least bias, 0 for the least variance.

    Returns:
        Advantages and returns (advantages + values, before any whitening), both [..., R] float32
        and 0 on masked tokens.
    """
    mask = mask.astype(bool)
    rewards, values = (
        jax.lax.stop_gradient(jnp.where(mask, x, 0.0)).astype(jnp.float32)
        for x in (rewards, values)
    )

    def backwards(following, token):
        next_value, next_advantage = following
        reward, value, counts = token
        delta = reward + gamma * next_value - value
        advantage = delta + gamma * gae_lambda * next_advantage
        following = (
            jnp.where(counts, value, next_value),
            jnp.where(counts, advantage, next_advantage),
        )
        return following, jnp.where(counts, advantage, 0.0)

    last = jnp.zeros(mask.shape[:-1])
    tokens = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), (rewards, values, mask))
    _, advantages = jax.lax.scan(backwards, (last, last), tokens, reverse=True)
    advantages = jnp.moveaxis(advantages, 0, -1)
    return advantages, advantages + values


def whiten(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Shifts and scales the unmasked values to mean 0 and unbiased variance 1, as in verl.

    Args:
        values: [...].
        mask: [...], over which both moments are taken.

    Returns:
        [...] float32, (value - mean) / sqrt(variance + 1e-8), and 0 on masked entries.
    """
    centred = centre(values, mask)
    variance = jnp.square(centred).sum() / jnp.maximum(mask.astype(bool).sum() - 1, 1)
    return centred * jax.lax.rsqrt(variance + 1e-8)


def centre(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Shifts the unmasked values `[...]` to mean 0; float32, and 0 on masked entries."""
    mask = mask.astype(bool)
    values = jnp.where(mask, values, 0.0).astype(jnp.float32)
    return jnp.where(mask, values - values.sum() / jnp.maximum(mask.sum(), 1), 0.0)
