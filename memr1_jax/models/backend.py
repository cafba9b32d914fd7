"""Where a program will run, for the few places that XLA's CPU compiler serves badly."""

import jax
import jax.numpy as jnp


def on_one_cpu() -> bool:
    """Whether what is traced now will run on a single device that is a CPU."""
    return jax.sharding.get_abstract_mesh().empty and jax.default_backend() == "cpu"


def narrow_on_cpu(x: jax.Array) -> bool:
    """Whether an array is bfloat16 on a single device that is a CPU."""
    return x.dtype == jnp.bfloat16 and on_one_cpu()
