"""Shapes and options of the decoder, with presets for the model families that it serves."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama-3.1 frequency correction: long wavelengths are divided, middle ones blended.

    Source: `rope_type: llama3` in the published Llama-3.1 and Llama-3.2 configurations.
    """

    factor: float
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_positions: int = 8192


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Fixes the decoder's parameters and arithmetic; hashable, so static under `jit`."""

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
    qkv_bias: bool = False
    tie_embeddings: bool = True
    max_positions: int = 8192

    def __post_init__(self):
        """Checks that query heads share key heads evenly."""
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads"
                f" ({self.num_kv_heads})."
            )

    @property
    def num_parameters(self) -> int:
        """Number of scalar parameters."""
        width, heads, kv = self.model_width, self.num_heads, self.num_kv_heads
        attention = width * self.head_size * (2 * heads + 2 * kv)
        bias = self.head_size * (heads + 2 * kv) if self.qkv_bias else 0
        layer = attention + bias + 3 * width * self.mlp_width + 2 * width
        tables = self.vocab_size * width * (1 if self.tie_embeddings else 2)
        return self.num_layers * layer + tables + width


def _llama(width, layers, heads, kv_heads, head_size, mlp, *, factor, tied):
    return DecoderConfig(
        vocab_size=128_256,
        num_layers=layers,
        model_width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        mlp_width=mlp,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(factor=factor),
        tie_embeddings=tied,
        max_positions=131_072,
    )


def _qwen(width, layers, heads, kv_heads, head_size, mlp, *, vocab=151_936, tied=True):
    return DecoderConfig(
        vocab_size=vocab,
        num_layers=layers,
        model_width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        mlp_width=mlp,
        rope_theta=1_000_000.0,
        rms_epsilon=1e-6,
        qkv_bias=True,
        tie_embeddings=tied,
        max_positions=32_768,
    )


def _smollm(width, layers, heads, kv_heads, mlp, *, theta=100_000.0):
    return DecoderConfig(
        vocab_size=49_152,
        num_layers=layers,
        model_width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=64,
        mlp_width=mlp,
        rope_theta=theta,
    )


PRESETS: dict[str, DecoderConfig] = {
    "llama-3.1-8b": _llama(4096, 32, 32, 8, 128, 14_336, factor=8.0, tied=False),
    "llama-3.2-1b": _llama(2048, 16, 32, 8, 64, 8192, factor=32.0, tied=True),
    "llama-3.2-3b": _llama(3072, 28, 24, 8, 128, 8192, factor=32.0, tied=True),
    "qwen2.5-0.5b": _qwen(896, 24, 14, 2, 64, 4864),
    "qwen2.5-1.5b": _qwen(1536, 28, 12, 2, 128, 8960),
    "qwen2.5-3b": _qwen(2048, 36, 16, 2, 128, 11_008),
    "qwen2.5-7b": _qwen(3584, 28, 28, 4, 128, 18_944, vocab=152_064, tied=False),
    "qwen2.5-14b": _qwen(5120, 48, 40, 8, 128, 13_824, vocab=152_064, tied=False),
    "smollm2-135m": _smollm(576, 30, 9, 3, 1536),
    "smollm2-360m": _smollm(960, 32, 15, 5, 2560),
    "smollm2-1.7b": _smollm(2048, 24, 32, 32, 8192, theta=130_000.0),
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
