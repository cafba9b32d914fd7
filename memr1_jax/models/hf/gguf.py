"""SmolLM2 from a GGUF file to a Hugging Face model folder."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.hf.folders import whole_folder, write_json
from memr1_jax.models.hf.hf_config import config_to_hf


def convert_smollm2(gguf_path: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """Converts a SmolLM2 GGUF file to a Hugging Face folder with tokenizer and chat template.

    The weights are stored as float32 (538 MB for 135M parameters): bfloat16 would round the exact
    dequantised values a second time. They remain 4-bit weights, not those of the published
    checkpoint. The folder appears whole or not at all; raises UserError for other files and for
    truncated ones.
    """
    import gguf
    from safetensors.numpy import save_file

    model, stored = _read(gguf_path)
    architecture = model.get("general.architecture")
    if architecture != "llama" or model.get("tokenizer.ggml.pre") != "smollm":
        raise UserError(
            f"{gguf_path} is not a SmolLM2 model (architecture {architecture}). Export the model "
            "to a folder with config.json and safetensors instead."
        )
    config = _decoder_config(model, stored)
    tensors = {}
    for name, tensor in stored.items():
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        if name.endswith("attn_q.weight"):
            weight = _half_split(weight, config.num_heads)
        elif name.endswith("attn_k.weight"):
            weight = _half_split(weight, config.num_kv_heads)
        tensors[_hf_name(name)] = weight
    ids = {f"{key}_token_id": model[f"tokenizer.ggml.{name}_token_id"] for key, name in _TOKEN_IDS}
    with whole_folder(folder) as new:
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        write_json(new / "config.json", config_to_hf(config) | ids)
        write_json(new / "generation_config.json", ids)
        _tokenizer(model).save(str(new / "tokenizer.json"))
        write_json(new / "tokenizer_config.json", _tokenizer_config(model, config))
    return Path(folder)


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
_RENAMES = {  # GGUF -> Hugging Face, applied in this order
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "blk.": "model.layers.",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_output": "self_attn.o_proj",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _hf_name(name: str) -> str:
    for old, new in _RENAMES.items():
        name = name.replace(old, new)
    return name


def _half_split(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's interleaving of rotary pairs: rows (2i, 2i+1) of a head become (i, i+H/2)."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def _decoder_config(model: dict[str, Any], stored: dict[str, Any]) -> DecoderConfig:
    width, heads = model["llama.embedding_length"], model["llama.attention.head_count"]
    return DecoderConfig(
        vocab_size=len(model["tokenizer.ggml.tokens"]),
        num_layers=model["llama.block_count"],
        model_width=width,
        num_heads=heads,
        num_kv_heads=model["llama.attention.head_count_kv"],
        head_size=width // heads,
        mlp_width=model["llama.feed_forward_length"],
        rope_theta=model["llama.rope.freq_base"],
        # Stored in single precision, where 1e-5 reads 9.99999974e-06.
        rms_epsilon=float(f"{model['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        tie_embeddings="output.weight" not in stored,
        max_positions=model["llama.context_length"],
    )


def _tokenizer(model: dict[str, Any]):
    """Builds a byte-level BPE that isolates digits first and adds no token around the text."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    tokens = model["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in model["tokenizer.ggml.merges"]]
    tokenizer = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token type for special tokens
    kinds = model["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == control]
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, special=True) for t in special])
    return tokenizer


def _tokenizer_config(model: dict[str, Any], config: DecoderConfig) -> dict[str, Any]:
    tokens = model["tokenizer.ggml.tokens"]
    names = {f"{key}_token": f"tokenizer.ggml.{name}_token_id" for key, name in _TOKEN_IDS}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{key: tokens[model[name]] for key, name in names.items()},
        "unk_token": tokens[model["tokenizer.ggml.unknown_token_id"]],
        "chat_template": model["tokenizer.chat_template"],
        "model_max_length": config.max_positions,
        "clean_up_tokenization_spaces": False,
    }
