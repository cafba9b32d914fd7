"""SmolLM2 and Gemma 3 from a GGUF file to a Hugging Face model folder."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.families import FAMILIES, FULL, SLIDING
from memr1_jax.models.hf.folders import whole_folder, write_json
from memr1_jax.models.hf.gguf_tokenizer import byte_level, sentencepiece
from memr1_jax.models.hf.hf_config import config_to_hf

# Base models of Gemma come without a template; this has the form of its instruction-tuned ones.
_GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('it has no system messages') }}{% endif %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def convert_gguf(gguf_path: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """Converts a GGUF file of SmolLM2 or Gemma 3 to a Hugging Face folder with tokenizer.

    The weights are stored as float32 (538 MB for 135M parameters): bfloat16 would round the exact
    dequantised values a second time. They remain 4-bit weights, not those of the published
    checkpoint. The folder appears whole or not at all; raises UserError for other files and for
    truncated ones.
    """
    from safetensors.numpy import save_file

    model, stored = _read(gguf_path)
    source = _source(model, gguf_path)
    config = source.config(model, stored)
    tensors = {}
    for name, tensor in stored.items():
        new_name = functools.reduce(lambda text, pair: text.replace(*pair), source.renames, name)
        tensors[new_name] = source.weight(name, tensor, config)
    ids = {f"{key}_token_id": model[f"tokenizer.ggml.{name}_token_id"] for key, name in _TOKEN_IDS}
    ends = ids | {"eos_token_id": source.ends(model)}
    with whole_folder(folder) as new:
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        write_json(new / "config.json", config_to_hf(config) | ends)
        write_json(new / "generation_config.json", ends)
        source.tokenizer(model).save(str(new / "tokenizer.json"))
        write_json(new / "tokenizer_config.json", _tokenizer_config(model, config, source))
    return Path(folder)


class _Source(NamedTuple):
    """Says how GGUF files of a family differ from its folders."""

    renames: tuple[tuple[str, str], ...]  # of tensors, in this order
    config: Callable[[dict, dict], DecoderConfig]
    weight: Callable[[str, Any, DecoderConfig], np.ndarray]
    tokenizer: Callable[[dict], Any]
    ends: Callable[[dict], Any]  # eos_token_id
    chat_template: str = ""  # where the file has none


def _source(model: dict[str, Any], path: str | os.PathLike) -> _Source:
    architecture = model.get("general.architecture")
    if architecture == "llama" and model.get("tokenizer.ggml.pre") == "smollm":
        return _SMOLLM2
    if architecture == "gemma3":
        return _GEMMA3
    raise UserError(
        f"{path} is neither a SmolLM2 nor a Gemma 3 model (architecture {architecture}). Export the"
        " model to a folder with config.json and safetensors instead."
    )


def _read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the metadata of a GGUF file and its tensors, memory mapped and quantised."""
    import gguf

    class Reader(gguf.GGUFReader):
        def _get(self, offset, dtype, count=1, override_order=None):
            # Beyond the file's end the package reads nothing, as many times as the header says.
            if offset + np.dtype(dtype).itemsize * int(count) > self.data.size:
                raise ValueError("the file is cut off")
            return super()._get(offset, dtype, count, override_order)

    try:
        reader = Reader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, KeyError, IndexError, RecursionError) as error:
        raise UserError(f"{path} is not a whole GGUF file ({error}). Download it again.") from error
    return metadata, {tensor.name: tensor for tensor in reader.tensors}


_TOKEN_IDS = (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))


def _smollm2_weight(name: str, tensor: Any, config: DecoderConfig) -> np.ndarray:
    weight = _dequantised(tensor)
    if name.endswith("attn_q.weight"):
        return _half_split(weight, config.num_heads)
    if name.endswith("attn_k.weight"):
        return _half_split(weight, config.num_kv_heads)
    return weight


def _gemma3_weight(name: str, tensor: Any, config: DecoderConfig) -> np.ndarray:
    # GGUF files hold what a norm multiplies by, folders what is added to 1.
    weight = _dequantised(tensor)
    return weight - 1 if name.endswith("norm.weight") else weight


def _dequantised(tensor: Any) -> np.ndarray:
    import gguf

    return gguf.dequantize(tensor.data, tensor.tensor_type)


def _half_split(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's interleaving of rotary pairs: rows (2i, 2i+1) of a head become (i, i+H/2)."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def _sizes(model: dict[str, Any], stored: dict[str, Any], kind: str) -> dict[str, Any]:
    """Reads what the configurations of all families share; `kind` is the architecture."""
    width, heads = model[f"{kind}.embedding_length"], model[f"{kind}.attention.head_count"]
    return {
        "vocab_size": len(model["tokenizer.ggml.tokens"]),
        "num_layers": model[f"{kind}.block_count"],
        "model_width": width,
        "num_heads": heads,
        "num_kv_heads": model[f"{kind}.attention.head_count_kv"],
        "head_size": model.get(f"{kind}.attention.key_length", width // heads),
        "mlp_width": model[f"{kind}.feed_forward_length"],
        "rope_theta": model[f"{kind}.rope.freq_base"],
        # Stored in single precision, where 1e-5 reads 9.99999974e-06.
        "rms_epsilon": float(f"{model[f'{kind}.attention.layer_norm_rms_epsilon']:.6g}"),
        "tie_embeddings": "output.weight" not in stored,
        "max_positions": model[f"{kind}.context_length"],
    }


def _smollm2_config(model: dict[str, Any], stored: dict[str, Any]) -> DecoderConfig:
    return DecoderConfig(**_sizes(model, stored, "llama"))


def _gemma3_config(model: dict[str, Any], stored: dict[str, Any]) -> DecoderConfig:
    sizes, family = _sizes(model, stored, "gemma3"), FAMILIES["gemma3_text"]
    every = family.defaults["sliding_window_pattern"]
    return DecoderConfig(
        **sizes,
        family=family,
        layer_kinds=tuple(SLIDING if (i + 1) % every else FULL for i in range(sizes["num_layers"])),
        window=model["gemma3.attention.sliding_window"],
        sliding_theta=family.defaults["rope_local_base_freq"],
    )


def _tokenizer_config(
    model: dict[str, Any], config: DecoderConfig, source: _Source
) -> dict[str, Any]:
    tokens = model["tokenizer.ggml.tokens"]
    names = {f"{key}_token": f"tokenizer.ggml.{name}_token_id" for key, name in _TOKEN_IDS}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{key: tokens[model[name]] for key, name in names.items()},
        "unk_token": tokens[model["tokenizer.ggml.unknown_token_id"]],
        "chat_template": model.get("tokenizer.chat_template", source.chat_template),
        "model_max_length": config.max_positions,
        "clean_up_tokenization_spaces": False,
    }


def _eos(model: dict[str, Any]) -> int:
    return model["tokenizer.ggml.eos_token_id"]


def _eos_and_end_of_turn(model: dict[str, Any]) -> list[int]:
    return [_eos(model), model["tokenizer.ggml.tokens"].index("<end_of_turn>")]


_COMMON = (
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("blk.", "model.layers."),
    ("attn_norm", "input_layernorm"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
)
_SMOLLM2 = _Source(
    (*_COMMON, ("ffn_norm", "post_attention_layernorm")),
    _smollm2_config,
    _smollm2_weight,
    byte_level,
    _eos,
)
_GEMMA3 = _Source(
    (
        *_COMMON,
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("post_attention_norm", "post_attention_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
    ),
    _gemma3_config,
    _gemma3_weight,
    sentencepiece,
    _eos_and_end_of_turn,
    _GEMMA_CHAT,
)
