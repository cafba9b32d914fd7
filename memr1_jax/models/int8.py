"""Weights of projections as 8-bit integers, for sampling: half or a quarter of the bytes a token.

Symmetric, with one scale an output channel: `kernel` is int8 and `kernel_scale` float32, both as
`Projection` in `models/layers.py` expects them. Tables, norms, biases and adapters are kept as
they are. Samples then come from a slightly different policy than the trained one, so the update
needs the truncated importance weights of `--sampler_cap`.
"""

import jax.numpy as jnp

_LARGEST = 127
_TWO_INPUTS = {"output"}  # kernel [N, H, D]; of all others one axis is an input


def to_int8(params: dict) -> dict:
    """Returns parameters with the kernels of all layers, stacked on a leading axis, as int8."""
    return params | {"layers": _converted(params["layers"])}


def _converted(tree, name=""):
    if "kernel" not in tree:
        return {key: _converted(x, key) if isinstance(x, dict) else x for key, x in tree.items()}
    kernel = tree["kernel"].astype(jnp.float32)
    inputs = (1, 2) if name in _TWO_INPUTS else (1,)
    largest = jnp.abs(kernel).max(axis=inputs, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1.0) / _LARGEST
    rounded = jnp.round(kernel / scale).astype(jnp.int8)
    return tree | {"kernel": rounded, "kernel_scale": scale.squeeze(inputs)}
