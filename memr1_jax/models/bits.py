"""Bfloat16 arrays as integers, where XLA's CPU compiler slices nothing narrower than float32.

It has no bfloat16 slices and no updates of them: for each layer of a scan it turns all layers'
keys to float32 and back, and all weights from float32. It copies integers of the same bits and
updates them in place. A bit pattern has no gradient: this is for sampling, and for products that a
backward pass keeps.
"""

import jax
import jax.numpy as jnp


def narrow_on_cpu(x: jax.Array) -> bool:
    """Tells whether an array is bfloat16 on a single device that is a CPU."""
    return x.dtype == jnp.bfloat16 and on_one_cpu()


def on_one_cpu() -> bool:
    """Tells whether programs are compiled for a single device that is a CPU."""
    return jax.sharding.get_abstract_mesh().empty and jax.default_backend() == "cpu"


def as_bits(tree):
    """Returns a tree with bfloat16 arrays as uint16 on a CPU; for the inputs of a scan."""

    def convert(x):
        return jax.lax.bitcast_convert_type(x, jnp.uint16) if narrow_on_cpu(x) else x

    return jax.tree.map(convert, tree)


def as_values(tree):
    """Undoes `as_bits`."""

    def convert(x):
        return jax.lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x

    return jax.tree.map(convert, tree)
