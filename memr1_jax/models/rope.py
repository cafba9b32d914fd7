"""Rotary position embedding in the half-split form, with Llama-3.1 frequency scaling.

Axis letters: T query length, H head size.
"""

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.models.decoder_config import DecoderConfig


def rope_frequencies(config: DecoderConfig) -> np.ndarray:
    """Returns angular frequencies `[H / 2]` in radians a position, float32.

    With scaling, wavelengths longer than the trained context (over `low_frequency`) are divided by
    `factor`, short ones are kept, and those between are blended linearly in the number of turns
    that they make within the trained context.
    """
    exponent = np.arange(0, config.head_size, 2, dtype=np.float64) / config.head_size
    frequency = 1.0 / config.rope_theta**exponent
    scaling = config.rope_scaling
    if scaling is None:
        return frequency.astype(np.float32)
    turns = scaling.original_positions * frequency / (2 * np.pi)
    blend = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    blend = np.clip(blend, 0.0, 1.0)
    return (blend * frequency + (1 - blend) * frequency / scaling.factor).astype(np.float32)


def rope_tables(config: DecoderConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns cosine and sine `[..., T, H / 2]` in float32 for integer positions `[..., T]`."""
    angles = positions[..., None].astype(jnp.float32) * rope_frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(vectors: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Rotates the pairs `(i, i + H / 2)` of `[..., T, heads, H]`; computes in float32."""
    first, second = jnp.split(vectors.astype(jnp.float32), 2, axis=-1)
    cosine, sine = cosine[..., None, :], sine[..., None, :]
    rotated = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(rotated, axis=-1).astype(vectors.dtype)
