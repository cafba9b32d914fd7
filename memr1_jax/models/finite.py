"""Keeps weights that are not numbers from being exported or evaluated."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.errors import UserError

RETRAIN = "Take an earlier checkpoint, or train again with a lower learning rate."


def check_finite(params: Any, what: str, advice: str) -> None:
    """Refuses weights where any is NaN or infinite.

    In a run of several processes all of them call this together.

    Args:
      params: pytree of arrays, on devices or on the host.
      what: whose weights they are, the beginning of the sentence.
      advice: a sentence on what to do.

    Raises:
      UserError: an array holds such a value; the message names one and counts them.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    broken = [path for path, leaf in leaves if not _is_finite(leaf)]
    if broken:
        name = jax.tree_util.keystr(broken[0], simple=True, separator="/")
        raise UserError(
            f"{what}: {len(broken)} of {len(leaves)} arrays of weights hold NaN or infinity, such"
            f" as {name}. {advice}"
        )


def _is_finite(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):
        return bool(_on_device(leaf))
    return bool(np.isfinite(leaf).all())


@jax.jit
def _on_device(leaf: jax.Array) -> jax.Array:
    return jnp.isfinite(leaf).all()
