"""The decoder's configuration from and to Hugging Face's `config.json`."""

import math
import os
import reprlib
from pathlib import Path
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import DecoderConfig, RopeScaling
from memr1_jax.models.hf.folders import read_json

# Keys of config.json that change the arithmetic -> the values under which it is ours.
_SUPPORTED: dict[str, tuple] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1.0,),
    "quantization_config": (None,),
}


# Whole numbers -> the largest that is taken for a model's, and not for a slip or an attack.
_LIMITS = {
    "vocab_size": 2**24,
    "num_hidden_layers": 1024,
    "hidden_size": 2**17,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**12,
    "intermediate_size": 2**20,
    "max_position_embeddings": 2**30,
    "original_max_position_embeddings": 2**30,
}


def read_config(folder: str | os.PathLike) -> DecoderConfig:
    """Reads config.json of a model folder; raises UserError as `config_from_hf` does."""
    path = Path(folder) / "config.json"
    return config_from_hf(read_json(path), path)


def config_from_hf(hf: dict[str, Any], source: str | os.PathLike = "config.json") -> DecoderConfig:
    """Returns the decoder's configuration for a Hugging Face one of type `llama` or `qwen2`.

    Reads the keys of published checkpoints (`rope_theta`, `rope_scaling`) and those that
    transformers 5 writes (`rope_parameters`). Raises UserError, naming the file `source` and the
    key, for whatever the decoder does not compute, rather than compute something else, and for
    sizes that no model has, before anything is allocated.
    """
    fields = _Fields(hf, source)
    family = hf.get("model_type")
    if family not in ("llama", "qwen2"):
        raise fields.refusal("model_type", "llama, qwen2")
    for key, allowed in _SUPPORTED.items():
        if hf.get(key, allowed[0]) not in allowed:
            raise fields.refusal(key, allowed[0])
    layer_types = hf.get("layer_types") or []
    if not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types):
        raise fields.refusal("layer_types", "full_attention")
    if not isinstance(hf.get("tie_word_embeddings", False), bool):
        raise fields.refusal("tie_word_embeddings", "true, false")
    heads, width = fields.size("num_attention_heads"), fields.size("hidden_size")
    kv_heads = fields.size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.refusal("num_key_value_heads", f"divisors of {heads}")
    if hf.get("head_dim") is None and width % heads:
        raise fields.refusal("hidden_size", f"multiples of the {heads} heads")
    head_size = fields.size("head_dim", width // heads)
    if head_size % 2:
        raise UserError(
            f"{source} gives heads a size of {head_size}, but rotary positions turn pairs of "
            "numbers. Give an even head_dim."
        )
    theta, scaling = _rope(fields)
    return DecoderConfig(
        vocab_size=fields.size("vocab_size"),
        num_layers=fields.size("num_hidden_layers"),
        model_width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        mlp_width=fields.size("intermediate_size"),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_epsilon=fields.number("rms_norm_eps", 1e-6),
        qkv_bias=family == "qwen2",
        tie_embeddings=hf.get("tie_word_embeddings", False),
        max_positions=fields.size("max_position_embeddings"),
    )


def config_to_hf(config: DecoderConfig, dtype: str = "float32") -> dict[str, Any]:
    """Returns the content of `config.json`; `dtype` is the stored one, `float32` or `bfloat16`.

    The rotary keys are the older ones, which every version of transformers and vLLM reads.
    """
    family = ("qwen2", "Qwen2ForCausalLM") if config.qkv_bias else ("llama", "LlamaForCausalLM")
    scaling = config.rope_scaling
    return {
        "architectures": [family[1]],
        "model_type": family[0],
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.model_width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.mlp_width,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling
        and {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency,
            "high_freq_factor": scaling.high_frequency,
            "original_max_position_embeddings": scaling.original_positions,
        },
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_positions,
        "torch_dtype": dtype,
    }


def _rope(fields: "_Fields") -> tuple[float, RopeScaling | None]:
    rope = _Fields({}, fields.source)
    for key in ("rope_scaling", "rope_parameters"):
        part = fields.values.get(key) or {}
        if not isinstance(part, dict):
            raise fields.refusal(key, "an object, null")
        rope.values.update(part)
    if rope.values.get("partial_rotary_factor", 1.0) != 1.0:
        raise rope.refusal("partial_rotary_factor", 1.0)
    theta = rope.number("rope_theta", fields.number("rope_theta", 10_000.0))
    kind = rope.values.get("rope_type") or rope.values.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        rope.values["rope_type"] = kind
        raise rope.refusal("rope_type", "default, llama3")
    scaling = RopeScaling(
        factor=rope.number("factor"),
        low_frequency=rope.number("low_freq_factor"),
        high_frequency=rope.number("high_freq_factor"),
        original_positions=rope.size("original_max_position_embeddings"),
    )
    if scaling.high_frequency <= scaling.low_frequency:
        raise rope.refusal("high_freq_factor", f"more than {scaling.low_frequency}")
    return theta, scaling


class _Fields:
    """Checks the fields of a JSON object as they are read; `source` is its file."""

    def __init__(self, values: dict[str, Any], source: str | os.PathLike):
        self.values, self.source = values, source

    def size(self, key: str, default: int | None = None) -> int:
        """Returns a whole number from 1 to its limit."""
        value = self._get(key, default)
        if type(value) is not int or not 0 < value <= _LIMITS[key]:
            raise self._not("whole number", key, f" of at most {_LIMITS[key]:,}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Returns a finite number above 0."""
        value = self._get(key, default)
        if type(value) not in (int, float) or not (0 < value and math.isfinite(float(value))):
            raise self._not("number", key)
        return float(value)

    def refusal(self, key: str, supported: Any) -> UserError:
        """Returns the error for a value that the decoder does not compute."""
        return UserError(
            f"{self.source} has {key} = {self._shown(key)}, which the decoder does not compute "
            f"(supported: {supported}). Choose a Llama-3, Qwen2.5 or SmolLM2 checkpoint."
        )

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def _not(self, kind: str, key: str, limit: str = "") -> UserError:
        return UserError(
            f"{self.source} needs a positive {kind}{limit} under {key}, but it is "
            f"{self._shown(key)}. Download the file again."
        )

    def _shown(self, key: str) -> str:
        return reprlib.repr(self.values.get(key))
