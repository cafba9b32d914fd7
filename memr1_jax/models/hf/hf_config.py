"""The decoder's configuration from and to Hugging Face's `config.json`."""

import math
import os
import reprlib
from pathlib import Path
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import DecoderConfig, RopeScaling
from memr1_jax.models.families import FAMILIES, FULL, MISSING, NO_ROPE, SLIDING, Family
from memr1_jax.models.hf.folders import read_json

# Keys of config.json that change the arithmetic -> the values under which it is ours.
_SUPPORTED: dict[str, tuple] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1.0,),
    "quantization_config": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "use_bidirectional_attention": (False,),
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
    "sliding_window": 2**30,
    "sliding_window_pattern": 1024,
    "no_rope_layer_interval": 1024,
}


def read_config(folder: str | os.PathLike) -> DecoderConfig:
    """Reads config.json of a model folder; raises UserError as `config_from_hf` does."""
    path = Path(folder) / "config.json"
    return config_from_hf(read_json(path), path)


def config_from_hf(hf: dict[str, Any], source: str | os.PathLike = "config.json") -> DecoderConfig:
    """Returns the decoder's configuration for a Hugging Face one of a family in `FAMILIES`.

    Reads the keys of published checkpoints (`rope_theta`, `rope_scaling`) and those that
    transformers 5 writes (`rope_parameters`). Of a model that also sees, it is that of the language
    model in it. Raises UserError, naming the file `source` and the key, for whatever the decoder
    does not compute, rather than compute something else, and for sizes that no model has, before
    anything is allocated.
    """
    hf = _language_part(hf)
    family = _family(_Fields(hf, source))
    given = {key: value for key, value in hf.items() if value is not None}
    fields = _Fields({**family.defaults, **given}, source)
    if "sliding_window" in hf:  # null says that there is none
        fields.values["sliding_window"] = hf["sliding_window"]
    for key, allowed in (_SUPPORTED | {family.activation_key: (family.activation,)}).items():
        if fields.values.get(key, allowed[0]) not in allowed:
            raise fields.refusal(key, allowed[0])
    tied = fields.values.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise fields.refusal("tie_word_embeddings", "true, false")
    heads, width = fields.size("num_attention_heads"), fields.size("hidden_size")
    kv_heads = fields.size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.refusal("num_key_value_heads", f"divisors of {heads}")
    if fields.values.get("head_dim") is None and width % heads:
        raise fields.refusal("hidden_size", f"multiples of the {heads} heads")
    head_size = fields.size("head_dim", width // heads)
    if head_size % 2:
        raise UserError(
            f"{source} gives heads a size of {head_size}, but rotary positions turn pairs of "
            "numbers. Give an even head_dim."
        )
    layers = fields.size("num_hidden_layers")
    kinds = _layer_kinds(fields, layers)
    scalar = head_size
    if "query_pre_attn_scalar" in family.defaults:
        scalar = fields.number("query_pre_attn_scalar")
    return DecoderConfig(
        vocab_size=fields.size("vocab_size"),
        num_layers=layers,
        model_width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        mlp_width=fields.size("intermediate_size"),
        rms_epsilon=fields.number("rms_norm_eps", 1e-6),
        tie_embeddings=tied,
        max_positions=fields.size("max_position_embeddings"),
        family=family,
        layer_kinds=() if set(kinds) == {FULL} else kinds,
        window=fields.size("sliding_window") if SLIDING in kinds else None,
        query_scalar=None if scalar == head_size else scalar,
        **_rotation(fields, SLIDING in kinds),
    )


def config_to_hf(config: DecoderConfig, dtype: str = "float32") -> dict[str, Any]:
    """Returns the content of `config.json`; `dtype` is the stored one, `float32` or `bfloat16`.

    The rotary keys are the older ones, which every version of transformers and vLLM reads. Raises
    ValueError for what the config.json of the family cannot say.
    """
    family, kinds = config.family, config.layer_kinds or (FULL,) * config.num_layers
    first = kinds.index(SLIDING) if SLIDING in kinds else config.num_layers
    scalar = config.query_scalar or config.head_size
    by_family = {
        "use_sliding_window": SLIDING in kinds,
        "sliding_window": config.window,
        "max_window_layers": first,
        "layer_types": [_TYPES[kind] for kind in kinds],
        "no_rope_layers": [int(kind != NO_ROPE) for kind in kinds],
        "rope_local_base_freq": config.sliding_theta or config.rope_theta,
        # transformers takes whole numbers only.
        "query_pre_attn_scalar": int(scalar) if float(scalar).is_integer() else scalar,
        "pad_token_id": None,
    }
    values = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.model_width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.mlp_width,
        family.activation_key: family.activation,
        "rms_norm_eps": config.rms_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": _scaling_to_hf(config.rope_scaling),
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_positions,
        "torch_dtype": dtype,
        **{key: value for key, value in by_family.items() if key in family.defaults},
    }
    if (read := config_from_hf(values)) != config:
        raise ValueError(f"No {family.model_type} is like {config}: it would be read as {read}.")
    return values


_TYPES = {FULL: "full_attention", SLIDING: "sliding_attention", NO_ROPE: "full_attention"}


def _language_part(hf: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of the language model in one of a model that also sees."""
    wrapped = {family.wrapper for family in FAMILIES.values() if family.wrapper}
    part, name = hf.get("text_config"), hf.get("model_type")
    if not isinstance(name, str) or name not in wrapped or not isinstance(part, dict):
        return hf
    outer = ("tie_word_embeddings", "quantization_config", "eos_token_id", "torch_dtype", "dtype")
    return {key: hf[key] for key in outer if key in hf} | part


def _family(fields: "_Fields") -> Family:
    """Returns the family that model_type names; UserError says what others would need."""
    name = fields.values.get("model_type")
    if isinstance(name, str) and name in FAMILIES:
        return FAMILIES[name]
    if isinstance(name, str) and name in MISSING:
        raise UserError(
            f"{fields.source} has model_type = {name}, a family that needs {MISSING[name]}, which "
            f"the decoder does not compute. {_CHOOSE}"
        )
    raise fields.refusal("model_type", ", ".join(FAMILIES))


def _layer_kinds(fields: "_Fields", count: int) -> tuple[str, ...]:
    """Reads the kind of every layer, as transformers does for the fields of the family."""
    values = fields.values
    has_window = "sliding_window" in FAMILIES[values["model_type"]].defaults
    if values.get("use_sliding_window") and not has_window:
        raise fields.refusal("use_sliding_window", False)
    windowed = has_window and values.get("use_sliding_window", True)
    windowed = windowed and values.get("sliding_window") is not None
    first = values.get("max_window_layers", 0)
    if type(first) is not int:
        raise fields.refusal("max_window_layers", "whole numbers")
    kinds = [SLIDING if windowed and i >= first else FULL for i in range(count)]
    if windowed and "sliding_window_pattern" in values:
        every = fields.size("sliding_window_pattern")
        kinds = [SLIDING if (i + 1) % every else FULL for i in range(count)]
    if (types := values.get("layer_types")) is not None:
        names = {_TYPES[FULL]: FULL} | ({_TYPES[SLIDING]: SLIDING} if windowed else {})
        known = isinstance(types, list) and all(isinstance(kind, str) for kind in types)
        if not known or not set(types) <= set(names) or len(types) != count:
            raise fields.refusal("layer_types", f"{', '.join(names)} for each of {count} layers")
        kinds = [names[kind] for kind in types]
    return tuple(
        kind if rotates else NO_ROPE
        for kind, rotates in zip(kinds, _rotates(fields, count), strict=True)
    )


def _rotates(fields: "_Fields", count: int) -> list[bool]:
    """Tells which layers rotate their queries and keys."""
    listed = fields.values.get("no_rope_layers")
    if "no_rope_layer_interval" not in FAMILIES[fields.values["model_type"]].defaults:
        return [True] * count
    if listed is None:
        every = fields.size("no_rope_layer_interval")
        return [(i + 1) % every != 0 for i in range(count)]
    if not isinstance(listed, list) or len(listed) < count or not all(f in (0, 1) for f in listed):
        raise fields.refusal("no_rope_layers", f"0 or 1 for each of {count} layers")
    return [bool(flag) for flag in listed[:count]]


def _rotation(fields: "_Fields", sliding: bool) -> dict[str, Any]:
    """Reads RoPE bases and scaling, as fields of DecoderConfig; `sliding` layers have their own."""
    parts = {}
    for key in ("rope_scaling", "rope_parameters"):
        part = fields.values.get(key) or {}
        if not isinstance(part, dict):
            raise fields.refusal(key, "an object, null")
        parts |= part
    family, of_sliding = FAMILIES[fields.values["model_type"]], {}
    own = "rope_local_base_freq" in family.defaults
    if own and isinstance(parts.get(_TYPES[FULL]), dict):  # as transformers 5 writes them
        of_sliding = parts.get(_TYPES[SLIDING]) or {}
        parts = parts[_TYPES[FULL]]
    theta, scaling = _rope(_Fields(dict(parts), fields.source), fields.number("rope_theta", 1e4))
    result = {"rope_theta": theta, "rope_scaling": scaling}
    if own and sliding:
        if not isinstance(of_sliding, dict):
            raise fields.refusal("rope_parameters", "an object for each type of layers")
        default = fields.number("rope_local_base_freq")
        local = _Fields(dict(of_sliding), fields.source)
        result["sliding_theta"], scaling = _rope(local, default)
        if scaling:
            raise local.refusal("rope_type", "default for layers with a window")
    return result


def _rope(rope: "_Fields", theta: float) -> tuple[float, RopeScaling | None]:
    """Reads one object of rotary keys; `theta` is the base where it has none."""
    if rope.values.get("partial_rotary_factor", 1.0) != 1.0:
        raise rope.refusal("partial_rotary_factor", 1.0)
    theta = rope.number("rope_theta", theta)
    kind = rope.values.get("rope_type") or rope.values.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling(rope.number("factor"), original_positions=None)
    if kind != "llama3":
        rope.values["rope_type"] = kind
        raise rope.refusal("rope_type", "default, linear, llama3")
    scaling = RopeScaling(
        factor=rope.number("factor"),
        low_frequency=rope.number("low_freq_factor"),
        high_frequency=rope.number("high_freq_factor"),
        original_positions=rope.size("original_max_position_embeddings"),
    )
    if scaling.high_frequency <= scaling.low_frequency:
        raise rope.refusal("high_freq_factor", f"more than {scaling.low_frequency}")
    return theta, scaling


def _scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if scaling.original_positions is None:
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_frequency,
        "high_freq_factor": scaling.high_frequency,
        "original_max_position_embeddings": scaling.original_positions,
    }


_CHOOSE = f"Choose a checkpoint of {', '.join(family.models for family in FAMILIES.values())}."


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
            f"(supported: {supported}). {_CHOOSE}"
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
