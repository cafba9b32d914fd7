"""Trajectories of several steps: their steps are rows of an update, their rewards form the groups.

A trajectory's prompts differ after its first step, so each step is a row with a single sample; the
rewards of the G trajectories from one root are compared (Memory-R1, Algorithm 5). Without
trajectories a row's samples are its group, and each of them is a trajectory of one step.

Axis letters: B roots, G trajectories of a root, T steps; X rows with g samples each: B G T rows of
one sample, or without trajectories B rows of G samples.
"""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Trajectories:
    """Lays out rows: the T steps of the first trajectory, of the second, and so on.

    Static under `jit`.
    """

    group: int = struct.field(pytree_node=False)  # G
    steps: int = struct.field(pytree_node=False)  # T


def by_step(trajectories: Trajectories | None, values: jax.Array) -> jax.Array:
    """Returns values of rows `[X, g]` as `[B, G, T]`."""
    if trajectories is None:
        return values[..., None]
    return values.reshape(-1, trajectories.group, trajectories.steps)


def by_row(trajectories: Trajectories | None, values: jax.Array) -> jax.Array:
    """Returns values of trajectories `[B, G]` as those of all their steps, `[X, g]`."""
    if trajectories is None:
        return values
    return jnp.repeat(values.reshape(-1), trajectories.steps)[:, None]


def returns(
    trajectories: Trajectories | None, rewards: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns rewards `[B, G]` of trajectories, and which of the roots are valid `[B]`.

    Args:
      trajectories: see above.
      rewards: `[X, g]`, the same at all valid steps of a trajectory.
      valid: `[X]`; a trajectory is one where any of its steps is.
    """
    if trajectories is None:
        return rewards, valid
    steps = by_step(trajectories, valid[:, None])
    rewards = by_step(trajectories, rewards)
    first = jnp.argmax(steps, axis=-1, keepdims=True)
    rewards = jnp.take_along_axis(rewards, first, axis=-1)[..., 0]
    return jnp.where(steps.any(-1), rewards, 0.0), steps.any((1, 2))
