"""Rotary embedding: frequencies against published values, rotation against complex numbers."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.models.decoder_config import PRESETS
from memr1_jax.models.rope import apply_rope, rope_frequencies, rope_tables

GOLDEN = {  # index: frequency before and after scaling
    "llama-3.1-8b": {
        28: (3.21144599e-3, 3.21144599e-3),
        29: (2.61609925e-3, 2.16657076e-3),
        32: (1.41421356e-3, 5.24846161e-4),
        34: (9.38473870e-4, 1.78507813e-4),
        35: (7.64496988e-4, 9.55621235e-5),
        63: (2.45514079e-6, 3.06892599e-7),
    },
    "llama-3.2-1b": {
        15: (2.13111954e-3, 1.29054793e-3),
        16: (1.41421356e-3, 4.29556797e-4),
        17: (9.38473870e-4, 9.70828780e-5),
        31: (3.01385815e-6, 9.41830673e-8),
    },
}
BANDS = {"llama-3.1-8b": (29, 6, 29), "llama-3.2-1b": (15, 3, 14)}  # kept, blended, divided


@pytest.mark.parametrize("name", GOLDEN)
def test_frequencies_equal_published_values(name):
    config = PRESETS[name]
    plain = rope_frequencies(dataclasses.replace(config, rope_scaling=None))
    scaled = rope_frequencies(config)
    index = list(GOLDEN[name])
    before, after = np.transpose(list(GOLDEN[name].values()))
    np.testing.assert_allclose(plain[index], before, rtol=1e-6)
    np.testing.assert_allclose(scaled[index], after, rtol=1e-6)
    ratio = plain / scaled
    kept = np.isclose(ratio, 1, rtol=1e-6)
    divided = np.isclose(ratio, config.rope_scaling.factor, rtol=1e-6)
    assert (kept.sum(), (~kept & ~divided).sum(), divided.sum()) == BANDS[name]


def test_unscaled_frequencies_are_powers_of_theta():
    frequencies = rope_frequencies(PRESETS["qwen2.5-0.5b"])
    expected = [1_000_000.0 ** (-2 * i / 64) for i in range(32)]
    np.testing.assert_allclose(frequencies, expected, rtol=1e-6)


def test_rotation_is_a_complex_product_at_far_positions():
    config = PRESETS["llama-3.2-1b"]
    positions = np.array([[0, 1, 257], [4095, 65_537, 131_071]])
    vectors = np.random.default_rng(0).normal(size=(2, 3, 5, 64)).astype(np.float32)
    cosine, sine = rope_tables(config, jnp.asarray(positions))
    rotated = np.asarray(apply_rope(jnp.asarray(vectors), cosine, sine))
    # The reference, too, multiplies in float32: angles of some 1e5 keep two or three decimals.
    angles = positions[..., None].astype(np.float32) * rope_frequencies(config)
    turned = (vectors[..., :32] + 1j * vectors[..., 32:]) * np.exp(1j * angles)[..., None, :]
    np.testing.assert_allclose(rotated[..., :32], turned.real, atol=1e-5)
    np.testing.assert_allclose(rotated[..., 32:], turned.imag, atol=1e-5)
    np.testing.assert_array_equal(rotated[0, 0], vectors[0, 0])  # position 0
