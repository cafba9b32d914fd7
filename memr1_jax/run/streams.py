"""Random streams by name: what one part of a run draws does not depend on what another draws.

A run has one seed. Each use of it has a name, such as ("manager", "rollout"), and a stream of its
own, so that agents, data order, initial values and samples never share random numbers.
"""

import random
import zlib

import jax
import numpy as np


def stable_hash(*names: str) -> int:
    """Returns 32 bits that depend on the names alone, in every process and Python version."""
    return zlib.crc32("/".join(names).encode())


def named_key(key: jax.Array, *names: str) -> jax.Array:
    """Derives the random key of a named stream from the key of a run, agent or step."""
    return jax.random.fold_in(key, np.uint32(stable_hash(*names)))


def run_key(seed: int, *names: str) -> jax.Array:
    """Returns the random key of a named stream of the run with this seed."""
    return named_key(jax.random.key(seed), *names)


def run_generator(seed: int, *names: str, part: int = 0) -> np.random.Generator:
    """Returns NumPy's generator of a part, such as an epoch, of a named stream of the run."""
    return np.random.default_rng([seed, stable_hash(*names), part])


def run_draw(seed: int, *names: str) -> float:
    """Draws one number from [0, 1), the same for the same names; for choices made on the host."""
    return random.Random("/".join((str(seed), *names))).random()
