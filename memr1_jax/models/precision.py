"""Number formats of weights: that of the arithmetic, but float32 for the scales of norms.

A norm multiplies in float32 (`RMSNorm` in `models/layers.py`), so a scale is never rounded where
it is trained. Were it rounded where the same policy is sampled, the two would be different policies
as soon as the scales have moved.
"""

from typing import Any

import jax
import jax.numpy as jnp


def weight_dtype(name: str, dtype: Any) -> Any:
    """Returns the format of the parameter `name`, the last part of its path, in a `dtype` model."""
    return jnp.dtype(jnp.float32 if name in ("scale", "kernel_scale") else dtype)


def cast_weights(params: Any, dtype: Any) -> Any:
    """Casts parameters, arrays or abstract, to the formats of a model in `dtype`; int8 is kept."""

    def cast(path, leaf):
        kind = leaf.dtype if leaf.dtype == jnp.int8 else weight_dtype(path[-1].key, dtype)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, kind)
        return leaf.astype(kind)

    return jax.tree_util.tree_map_with_path(cast, params)


def float32_copy(params: Any) -> Any:
    """Copies parameters to float32 arrays of their own, for an update that donates them."""
    return jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), params)
