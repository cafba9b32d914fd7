"""The decoder's configuration from and to Hugging Face's `config.json`."""

from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.models.config import DecoderConfig, RopeScaling

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


def config_from_hf(hf: dict[str, Any]) -> DecoderConfig:
    """Returns the decoder's configuration for a Hugging Face one of type `llama` or `qwen2`.

    Reads the keys of published checkpoints (`rope_theta`, `rope_scaling`) and those that
    transformers 5 writes (`rope_parameters`). Raises UserError, naming the key, for whatever the
    decoder does not compute, rather than compute something else.
    """
    family = hf.get("model_type")
    if family not in ("llama", "qwen2"):
        raise _refusal("model_type", family, "llama, qwen2")
    for key, allowed in _SUPPORTED.items():
        if hf.get(key, allowed[0]) not in allowed:
            raise _refusal(key, hf[key], allowed[0])
    layer_types = hf.get("layer_types") or []
    if other := [kind for kind in layer_types if kind != "full_attention"]:
        raise _refusal("layer_types", other[0], "full_attention")
    heads, width = _positive(hf, "num_attention_heads"), _positive(hf, "hidden_size")
    kv_heads = hf.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise _refusal("num_key_value_heads", kv_heads, f"divisors of {heads}")
    theta, scaling = _rope(hf)
    return DecoderConfig(
        vocab_size=_positive(hf, "vocab_size"),
        num_layers=_positive(hf, "num_hidden_layers"),
        model_width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=hf.get("head_dim") or width // heads,
        mlp_width=_positive(hf, "intermediate_size"),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_epsilon=float(hf.get("rms_norm_eps", 1e-6)),
        qkv_bias=family == "qwen2",
        tie_embeddings=bool(hf.get("tie_word_embeddings", False)),
        max_positions=_positive(hf, "max_position_embeddings"),
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


def _rope(hf: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    rope = {**(hf.get("rope_scaling") or {}), **(hf.get("rope_parameters") or {})}
    theta = float(rope.get("rope_theta") or hf.get("rope_theta") or 10_000.0)
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise _refusal("partial_rotary_factor", rope["partial_rotary_factor"], 1.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise _refusal("rope_type", kind, "default, llama3")
    scaling = RopeScaling(
        factor=float(_positive(rope, "factor")),
        low_frequency=float(_positive(rope, "low_freq_factor")),
        high_frequency=float(_positive(rope, "high_freq_factor")),
        original_positions=int(_positive(rope, "original_max_position_embeddings")),
    )
    return theta, scaling


def _positive(hf: dict[str, Any], key: str):
    value = hf.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise UserError(f"config.json needs a positive number under {key}, but it is {value!r}.")
    return value


def _refusal(key: str, value: Any, supported: Any) -> UserError:
    return UserError(
        f"config.json has {key} = {value!r}, which the decoder does not compute "
        f"(supported: {supported}). Choose a Llama-3, Qwen2.5 or SmolLM2 checkpoint."
    )
