"""Shapes and options of the decoder, with presets for the model families that it serves."""

import dataclasses
import functools

from memr1_jax.models.families import FAMILIES, FULL, NO_ROPE, SLIDING, Family


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama-3.1 frequency correction: low frequencies are divided, middle ones blended.

    Without `original_positions` all frequencies are divided (`rope_type: linear`).

    Source: `rope_type: llama3` in the published Llama-3.1 and Llama-3.2 configurations.
    """

    factor: float
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_positions: int | None = 8192


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Fixes the decoder's parameters and arithmetic; hashable, so static under `jit`.

    `layer_kinds` has the kind of every layer (`models/families.py`), or is empty where all are
    FULL. A query of a SLIDING layer sees `window` keys, its own included.
    """

    vocab_size: int  # V
    num_layers: int  # L
    model_width: int  # D
    num_heads: int  # N
    num_kv_heads: int  # K
    head_size: int  # H
    mlp_width: int  # F
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_epsilon: float = 1e-5
    tie_embeddings: bool = True
    max_positions: int = 8192
    family: Family = FAMILIES["llama"]
    layer_kinds: tuple[str, ...] = ()
    window: int | None = None
    sliding_theta: float | None = None  # RoPE base of SLIDING layers, unscaled; None: as of others
    query_scalar: float | None = None  # scores are divided by its root; None: by that of H

    def __post_init__(self):
        """Checks that query heads share key heads evenly, and the kinds of the layers."""
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads"
                f" ({self.num_kv_heads})."
            )
        if self.layer_kinds and len(self.layer_kinds) != self.num_layers:
            raise ValueError(f"{len(self.layer_kinds)} kinds for {self.num_layers} layers.")
        if SLIDING in self.layer_kinds and not self.window:
            raise ValueError("Sliding layers need a window.")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Distinct kinds of layers."""
        return tuple(dict.fromkeys(self.layer_kinds)) or (FULL,)

    @property
    def num_parameters(self) -> int:
        """Number of scalar parameters."""
        width, heads, kv = self.model_width, self.num_heads, self.num_kv_heads
        attention = width * self.head_size * (2 * heads + 2 * kv)
        bias = self.head_size * (heads + 2 * kv) if self.family.qkv_bias else 0
        norms = len(self.family.norms) * width + 2 * self.head_size * self.family.qk_norm
        layer = attention + bias + norms + 3 * width * self.mlp_width
        tables = self.vocab_size * width * (1 if self.tie_embeddings else 2)
        return self.num_layers * layer + tables + width


def _shape(name, width, layers, heads, kv_heads, head_size, mlp, vocab, **others):
    return DecoderConfig(
        vocab_size=vocab,
        num_layers=layers,
        model_width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        mlp_width=mlp,
        family=FAMILIES[name],
        **others,
    )


def _llama(*sizes, factor, tied):
    return _shape(
        "llama",
        *sizes,
        vocab=128_256,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(factor=factor),
        tie_embeddings=tied,
        max_positions=131_072,
    )


_SMOLLM2 = functools.partial(_shape, "llama", vocab=49_152)
_QWEN = {"rope_theta": 1_000_000.0, "rms_epsilon": 1e-6}


def _qwen2(*sizes, vocab=151_936, tied=True):
    options = _QWEN | {"tie_embeddings": tied, "max_positions": 32_768}
    return _shape("qwen2", *sizes, vocab=vocab, **options)


def _qwen3(*sizes, tied=True):
    options = _QWEN | {"tie_embeddings": tied, "max_positions": 40_960}
    return _shape("qwen3", *sizes, vocab=151_936, **options)


def _gemma3(width, layers, *sizes, window, vocab=262_144, positions=32_768, scaling=None):
    return _shape(
        "gemma3_text",
        width,
        layers,
        *sizes,
        vocab=vocab,
        rope_theta=1_000_000.0,
        rope_scaling=scaling,
        rms_epsilon=1e-6,
        max_positions=positions,
        layer_kinds=tuple(SLIDING if (i + 1) % 6 else FULL for i in range(layers)),
        window=window,
        sliding_theta=10_000.0,
    )


# Sizes: D, L, N, K, H, F.
PRESETS: dict[str, DecoderConfig] = {
    "llama-3.1-8b": _llama(4096, 32, 32, 8, 128, 14_336, factor=8.0, tied=False),
    "llama-3.2-1b": _llama(2048, 16, 32, 8, 64, 8192, factor=32.0, tied=True),
    "llama-3.2-3b": _llama(3072, 28, 24, 8, 128, 8192, factor=32.0, tied=True),
    "qwen2.5-0.5b": _qwen2(896, 24, 14, 2, 64, 4864),
    "qwen2.5-1.5b": _qwen2(1536, 28, 12, 2, 128, 8960),
    "qwen2.5-3b": _qwen2(2048, 36, 16, 2, 128, 11_008),
    "qwen2.5-7b": _qwen2(3584, 28, 28, 4, 128, 18_944, vocab=152_064, tied=False),
    "qwen2.5-14b": _qwen2(5120, 48, 40, 8, 128, 13_824, vocab=152_064, tied=False),
    "qwen3-0.6b": _qwen3(1024, 28, 16, 8, 128, 3072),
    "qwen3-1.7b": _qwen3(2048, 28, 16, 8, 128, 6144),
    "qwen3-4b": _qwen3(2560, 36, 32, 8, 128, 9728),
    "qwen3-8b": _qwen3(4096, 36, 32, 8, 128, 12_288, tied=False),
    "qwen3-14b": _qwen3(5120, 40, 40, 8, 128, 17_408, tied=False),
    "gemma-3-270m": _gemma3(640, 18, 4, 1, 256, 2048, window=512),
    "gemma-3-1b": _gemma3(1152, 26, 4, 1, 256, 6912, window=512),
    "gemma-3-4b": _gemma3(
        *(2560, 34, 8, 4, 256, 10_240),
        window=1024,
        vocab=262_208,
        positions=131_072,
        scaling=RopeScaling(factor=8.0, original_positions=None),
    ),
    "smollm2-135m": _SMOLLM2(576, 30, 9, 3, 64, 1536, rope_theta=100_000.0),
    "smollm2-360m": _SMOLLM2(960, 32, 15, 5, 64, 2560, rope_theta=100_000.0),
    "smollm2-1.7b": _SMOLLM2(2048, 24, 32, 32, 64, 8192, rope_theta=130_000.0),
    "smollm3-3b": _shape(
        "smollm3",
        *(2048, 36, 16, 4, 128, 11_008),
        vocab=128_256,
        rope_theta=5_000_000.0,
        rms_epsilon=1e-6,
        max_positions=65_536,
        layer_kinds=(FULL, FULL, FULL, NO_ROPE) * 9,
    ),
    "mistral-7b-v0.3": _shape(
        "mistral",
        *(4096, 32, 32, 8, 128, 14_336),
        vocab=32_768,
        rope_theta=1_000_000.0,
        tie_embeddings=False,
        max_positions=32_768,
    ),
    "tiny": DecoderConfig(
        vocab_size=512,
        num_layers=2,
        model_width=64,
        num_heads=4,
        num_kv_heads=2,
        head_size=16,
        mlp_width=128,
    ),
}
