"""Advantages from the outcomes of a group: GRPO, Dr.GRPO and RLOO.

`B` prompts in a batch, `G` samples per prompt, `R` response length.
"""

import jax
import jax.numpy as jnp

ADVANTAGES = ("grpo", "dr_grpo", "rloo")


def group_advantages(scores: jax.Array, kind: str = "grpo") -> jax.Array:
    """Advantage of each sample relative to the other samples of its prompt.

    With mean m and standard deviation s (divisor G - 1) of the group:

    - `grpo`: (score - m) / (s + 1e-6) (arXiv 2402.03300; as in verl);
    - `dr_grpo`: score - m (arXiv 2503.20783; verl's GRPO without the division);
    - `rloo`: score minus the mean of the G - 1 others (arXiv 2402.14740; as in verl).

    A group of equal scores gets exactly 0: rounding noise divided by 1e-6 would otherwise pass for
    a signal. A group of one has nothing to compare with, so, as in verl, m = 0 and s = 1.

    Args:
        scores: [B, G], sums of token rewards, so that a KL penalty in the reward is included.
        kind: one of `ADVANTAGES`.

    Returns:
        [B, G] float32.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in ADVANTAGES:
        raise ValueError(f"Unknown advantage {kind!r}: choose one of {', '.join(ADVANTAGES)}.")
    scores = scores.astype(jnp.float32)
    group = scores.shape[-1]
    if group == 1:
        return scores / (1.0 + 1e-6) if kind == "grpo" else scores
    centred = scores - scores.mean(-1, keepdims=True)
    if kind == "grpo":
        advantages = centred / (scores.std(-1, ddof=1, keepdims=True) + 1e-6)
    elif kind == "dr_grpo":
        advantages = centred
    else:
        # s - mean of the others = (s - mean) * G / (G - 1).
        advantages = centred * (group / (group - 1))
    return jnp.where(informative_groups(scores)[..., None], advantages, 0.0)


def informative_groups(scores: jax.Array) -> jax.Array:
    """Which prompts teach something: those whose samples scored differently, and groups of one.

    Args:
        scores: [B, G].

    Returns:
        [B] bool: a mask, and as a mean the share of groups with a learning signal.
    """
    if scores.shape[-1] == 1:
        return jnp.ones(scores.shape[:-1], bool)
    return scores.max(-1) != scores.min(-1)


def last_token_rewards(rewards: jax.Array, mask: jax.Array) -> jax.Array:
    """Put the reward of each response on its last unmasked token; all other tokens get 0.

    Args:
        rewards: [...], one outcome per response.
        mask: [..., R]; a response without any token gets no reward.

    Returns:
        [..., R] float32.
    """
    mask = mask.astype(bool)
    left = jnp.cumsum(mask[..., ::-1], axis=-1)[..., ::-1]  # tokens from here to the end
    return jnp.where(mask & (left == 1), rewards[..., None].astype(jnp.float32), 0.0)
