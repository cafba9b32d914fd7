"""Rotary position embedding in the half-split form, with Llama-3.1 frequency scaling.

Axis letters: T query length, H head size.
"""

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.families import FULL, NO_ROPE, SLIDING


def rope_frequencies(config: DecoderConfig, kind: str = FULL) -> np.ndarray:
    """Returns angular frequencies `[H / 2]` in radians a position, float32, of a kind of layer.

    With scaling, frequencies of wavelengths longer than the trained context (over `low_frequency`)
    are divided by `factor`, those of short ones are kept, and those between are blended linearly in
    the number of turns that they make within the trained context.
    """
    exponent = np.arange(0, config.head_size, 2, dtype=np.float64) / config.head_size
    theta, scaling = config.rope_theta, config.rope_scaling
    if kind == NO_ROPE:
        return np.zeros(len(exponent), np.float32)
    if kind == SLIDING and config.sliding_theta is not None:
        theta, scaling = config.sliding_theta, None
    frequency = 1.0 / theta**exponent
    if scaling is None:
        return frequency.astype(np.float32)
    if scaling.original_positions is None:
        return (frequency / scaling.factor).astype(np.float32)
    turns = scaling.original_positions * frequency / (2 * np.pi)
    blend = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    blend = np.clip(blend, 0.0, 1.0)
    return (blend * frequency + (1 - blend) * frequency / scaling.factor).astype(np.float32)


def rope_tables(
    config: DecoderConfig, positions: jax.Array, kind: str = FULL
) -> tuple[jax.Array, jax.Array]:
    """Returns cosine and sine `[..., T, H / 2]` in float32 for integer positions `[..., T]`."""
    angles = positions[..., None].astype(jnp.float32) * rope_frequencies(config, kind)
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(vectors: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Rotates the pairs `(i, i + H / 2)` of `[..., T, heads, H]`; computes in float32."""
    first, second = jnp.split(vectors.astype(jnp.float32), 2, axis=-1)
    cosine, sine = cosine[..., None, :], sine[..., None, :]
    rotated = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(rotated, axis=-1).astype(vectors.dtype)
