"""The layers of the decoder: projections, norms, attention, feed-forward network.

Axis letters: T length, S key length, N query heads, K key/value heads, H head size, D model width,
F feed-forward width, L layers, R response length.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from memr1_jax.models.attention import Projected, Source, attend
from memr1_jax.models.attention_kernels import attend_chain
from memr1_jax.models.bits import as_bits, as_values
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.product import product
from memr1_jax.models.rope import apply_rope
from memr1_jax.parallel.activations import split

ACTIVATIONS = {"silu": nn.silu, "gelu_pytorch_tanh": nn.gelu}


class Projection(nn.Module):
    """A linear map from the last `inputs` axes to `outputs`, kernel `[*inputs, *outputs]`.

    Where its parameters have adapters (`models/lora.py`), what they compute is added: `lora_a` is
    `[*inputs, r]`, and `lora_b` `[r, *outputs]`, for any rank r.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    use_bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x):
        """Maps `[..., *inputs]` to `[..., *outputs]`."""
        kernel = self.param("kernel", nn.initializers.normal(0.02), (*self.inputs, *self.outputs))
        y = product(x, kernel.astype(self.dtype), len(self.inputs))
        if self.has_variable("params", "kernel_scale"):  # see models/int8.py
            y = y * self.get_variable("params", "kernel_scale").astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), self.outputs)
            y = y + bias.astype(self.dtype)
        if self.has_variable("params", "lora_a"):
            lora_a, lora_b = (self.get_variable("params", name) for name in ("lora_a", "lora_b"))
            low = product(x, lora_a.astype(self.dtype), len(self.inputs))
            y = y + product(low, lora_b.astype(self.dtype), 1)
            # Both parts need not be kept for the backward pass where their sum is.
            y = checkpoint_name(y, "adapted")
        return y


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale; statistics in float32."""

    width: int
    epsilon: float
    dtype: Any
    offset: bool = False  # multiply by 1 + scale

    @nn.compact
    def __call__(self, x):
        """Maps `[..., D]` to the same shape."""
        init = nn.initializers.zeros_init() if self.offset else nn.initializers.ones_init()
        scale = self.param("scale", init, (self.width,))
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return (x * (1 + scale if self.offset else scale)).astype(self.dtype)


class Attention(nn.Module):
    """Projections and rotation before attention and after it; grouped heads."""

    config: DecoderConfig
    dtype: Any

    def setup(self):
        """Makes the four projections, and the norms of queries and keys where there are any."""
        config = self.config
        width, size = (config.model_width,), config.head_size
        make = functools.partial(Projection, dtype=self.dtype)
        bias = config.family.qkv_bias
        self.query = make(width, (config.num_heads, size), bias)
        self.key = make(width, (config.num_kv_heads, size), bias)
        self.value = make(width, (config.num_kv_heads, size), bias)
        self.output = make((config.num_heads, size), width, False)
        if config.family.qk_norm:
            self.query_norm, self.key_norm = (make_norm(config, size, self.dtype) for _ in range(2))

    def project(self, x, rope):
        """Computes rotated queries `[*lead, T, N, H]`, keys and values `[*lead, K, T, H]`."""
        query, key = self.query(x), self.key(x)
        if self.config.family.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        key = jnp.swapaxes(apply_rope(key, *rope), -2, -3)
        value = jnp.swapaxes(self.value(x), -2, -3)
        query = apply_rope(query, *rope)
        if scalar := self.config.query_scalar:  # `attend` divides by the root of the head size
            query = query * (self.config.head_size / scalar) ** 0.5
        rows = _rows(x)
        return split(query, rows=rows, heads=-2), *(
            split(array, rows=rows, heads=-3) for array in (key, value)
        )

    def __call__(self, heads):
        """Mixes the heads `[*lead, T, N, H]` that attended into `[*lead, T, D]`."""
        return self.output(heads)


class FeedForward(nn.Module):
    """Gated feed-forward network."""

    config: DecoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, x):
        """Maps `[..., D]` to the same shape."""
        width, hidden = (self.config.model_width,), (self.config.mlp_width,)
        make = functools.partial(Projection, use_bias=False, dtype=self.dtype)
        gate = make(width, hidden, name="gate")(x)
        up = make(width, hidden, name="up")(x)
        activation = ACTIVATIONS[self.config.family.activation]
        return make(hidden, width, name="down")(activation(gate) * up)


class Layer(nn.Module):
    """One layer over all blocks of a chain, or over one decoded token and its cache."""

    config: DecoderConfig
    dtype: Any
    kernel: str = "xla"

    def setup(self):
        """Makes the two halves of the layer."""
        config = self.config
        for name, _ in config.family.norms:
            setattr(self, name, make_norm(config, config.model_width, self.dtype))
        self.attention = Attention(config, self.dtype)
        self.mlp = FeedForward(config, self.dtype)

    def __call__(self, hidden, past, geometry):
        """Runs the blocks from the top of the chain down.

        Args:
          hidden: hidden states `[*lead, T, D]` of each block.
          past: `(key, value)`, each `[*lead, K, S, H]`, of each block above them, already computed.
          geometry: a `Geometry` of this layer.

        Returns:
          New hidden states, and `(key, value)` of each block.
        """
        blocks = [
            Projected(*self.attention.project(_whole(self.attention_norm(x)), rope), length)
            for x, rope, length in zip(hidden, geometry.ropes, geometry.lengths, strict=True)
        ]
        above = _sources(past, geometry.past_lengths)
        kernel = self.kernel if geometry.window is None else "xla"  # no kernel has such windows
        found = attend_chain(kernel, blocks, above, geometry.within_window)
        outputs = (self._finish(x, heads) for x, heads in zip(hidden, found, strict=True))
        return tuple(outputs), tuple((block.key, block.value) for block in blocks)

    def decode(self, x, past, geometry, cache, layer, step):
        """Runs one token `[*lead, 1, D]` a row, writing its keys into slot `step` of `cache`.

        `cache` is `(key, value)`, each `[L, *lead, K, R, H]`, of all layers: as the carry of the
        scan over layers it is updated in place.
        """
        query, *new = self.attention.project(_whole(self.attention_norm(x)), geometry.ropes[0])
        cache = tuple(
            _write(array, value, layer, step) for array, value in zip(cache, new, strict=True)
        )
        key, value = as_values((cache[0][layer], cache[1][layer]))
        own = Source(key, value, step[None] + 1, causal=True)
        above = _sources(past, geometry.past_lengths)
        return self._finish(x, attend(query, geometry.within_window([*above, own], 0))), cache

    def _finish(self, x, heads):
        change = self.attention(heads)
        if self.config.family.post_norms:
            change = self.attention_post_norm(change)
        x = resting(x + change)
        change = self.mlp(_whole(self.mlp_norm(x)))
        if self.config.family.post_norms:
            change = self.mlp_post_norm(change)
        return resting(x + change)


def make_norm(config, width, dtype):
    """Makes the norm of a family, over the last axis of a width."""
    return RMSNorm(width, config.rms_epsilon, dtype, config.family.offset_norms)


def _rows(hidden):
    """Returns the axis of prompts in `[*lead, T, D]`; an instruction has none."""
    return 0 if hidden.ndim > 2 else None


def _whole(hidden):
    """Puts all tokens of `[*lead, T, D]` on each device of the tensor axis, for projections."""
    return split(hidden, rows=_rows(hidden))


def resting(hidden):
    """Lays `[*lead, T, D]` as it rests between halves of a layer and for the backward pass.

    Sums over the tensor axis are scattered over tokens there (sequence parallelism, arXiv
    2205.05198): as much communication, and activations are held once.
    """
    return split(hidden, rows=_rows(hidden), heads=-2)


def _sources(past, lengths):
    return [
        Source(key, value, length, causal=False)
        for (key, value), length in zip(past, lengths, strict=True)
    ]


def _write(cache, new, layer, step):
    """Writes `[*lead, K, 1, H]` at `layer` and slot `step` of `[L, *lead, K, R, H]`."""
    start = (layer, *([0] * (cache.ndim - 3)), step, 0)
    return jax.lax.dynamic_update_slice(cache, as_bits(new)[None], start)
