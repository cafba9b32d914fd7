"""GGUF files: a NumPy reader, and SmolLM2 from GGUF to a Hugging Face model folder."""

import dataclasses
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.models.config import DecoderConfig
from memr1_jax.models.hf.folders import whole_folder, write_json
from memr1_jax.models.hf.hf_config import config_to_hf

_SCALARS = dict(
    enumerate(["u1", "i1", "u2", "i2", "u4", "i4", "f4", "?", "", "", "u8", "i8", "f8"])
)
_STRING, _ARRAY = 8, 9
_BLOCK = 32  # weights that share one scale in the quantised types


@dataclasses.dataclass(frozen=True)
class Gguf:
    """An open GGUF file: its metadata, and its tensors, dequantised when asked for."""

    path: Path
    metadata: dict[str, Any]
    data: np.ndarray  # uint8, the tensor section, memory mapped
    infos: dict[str, tuple[tuple[int, ...], int, int]]  # shape, type, offset into data

    def tensor(self, name: str) -> np.ndarray:
        """Returns one tensor as float32, rows first; raises UserError for types it cannot read."""
        shape, kind, offset = self.infos[name]
        if kind not in _TYPES:
            raise UserError(
                f"{self.path}: tensor {name} has GGUF type {kind}; this reader knows "
                f"{', '.join(label for label, *_ in _TYPES.values())}."
            )
        _, block_bytes, block_size, decode = _TYPES[kind]
        size = math.prod(shape)
        stop = offset + size // block_size * block_bytes
        if size % block_size or stop > self.data.size:
            raise UserError(f"{self.path}: tensor {name} is cut off. Download the file again.")
        return decode(self.data[offset:stop].reshape(-1, block_bytes)).reshape(shape)


def read_gguf(path: str | os.PathLike) -> Gguf:
    """Reads the header of a GGUF file of version 3; the tensors stay on disk until asked for.

    Raises UserError for other files and for truncated ones. Source: the GGUF specification in
    the documentation of the ggml library.
    """
    path = Path(path)
    try:
        content = np.memmap(path, np.uint8, mode="r")
        metadata, infos, start = _Header(content).read()
    except (OSError, ValueError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a whole GGUF file of version 3 ({error}).") from error
    return Gguf(path, metadata, content[start:], infos)


class _Header:
    """A cursor over the header."""

    def __init__(self, content: np.ndarray):
        self.content, self.position = content, 0

    def read(self):
        if self.take(4) != b"GGUF" or self.scalar("u4") != 3:
            raise ValueError("wrong magic number or version")
        num_tensors, num_pairs = self.scalar("u8"), self.scalar("u8")
        metadata = {}
        for _ in range(num_pairs):
            key = self.string()
            metadata[key] = self.value(self.scalar("u4"))
        infos = {}
        for _ in range(num_tensors):
            name = self.string()
            shape = tuple(self.scalar("u8") for _ in range(self.scalar("u4")))[::-1]
            infos[name] = (shape, self.scalar("u4"), self.scalar("u8"))
        alignment = metadata.get("general.alignment", 32)
        return metadata, infos, -(-self.position // alignment) * alignment

    def take(self, count: int) -> bytes:
        stop = self.position + count
        if stop > self.content.size:
            raise ValueError("the header is cut off")
        piece = self.content[self.position : stop].tobytes()
        self.position = stop
        return piece

    def scalar(self, kind: str):
        dtype = np.dtype(kind).newbyteorder("<")
        return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

    def string(self) -> str:
        return self.take(self.scalar("u8")).decode("utf-8")

    def value(self, kind: int):
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        kind, count = self.scalar("u4"), self.scalar("u8")
        if kind in (_STRING, _ARRAY):
            return [self.value(kind) for _ in range(count)]
        dtype = np.dtype(_SCALARS[kind]).newbyteorder("<")
        return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()


def _halves(blocks: np.ndarray, start: int) -> np.ndarray:
    """One float16 of every block, as a float32 column."""
    return blocks[:, start : start + 2].copy().view("<f2").astype(np.float32)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    scale, minimum, packed = _halves(blocks, 0), _halves(blocks, 2), blocks[:, 4:]
    quants = np.concatenate([packed & 15, packed >> 4], axis=1)  # low nibbles come first
    return quants.astype(np.float32) * scale + minimum


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _halves(blocks, 0)


_TYPES = {  # type number -> name, bytes per block, weights per block, decoder
    0: ("F32", 4, 1, lambda blocks: blocks.view("<f4").astype(np.float32)),
    1: ("F16", 2, 1, lambda blocks: blocks.view("<f2").astype(np.float32)),
    3: ("Q4_1", 20, _BLOCK, _q4_1),
    8: ("Q8_0", 34, _BLOCK, _q8_0),
}


def convert_smollm2(gguf_path: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """Converts a SmolLM2 GGUF file to a Hugging Face folder with tokenizer and chat template.

    The weights are stored as float32 (538 MB for 135M parameters): bfloat16 would round the exact
    dequantised values a second time. They remain 4-bit weights, not those of the published
    checkpoint. The folder appears whole or not at all; raises UserError as `read_gguf` does.
    """
    from safetensors.numpy import save_file

    source = read_gguf(gguf_path)
    model, architecture = source.metadata, source.metadata.get("general.architecture")
    if architecture != "llama" or model.get("tokenizer.ggml.pre") != "smollm":
        raise UserError(
            f"{gguf_path} is not a SmolLM2 model (architecture {architecture}). Export the model "
            "to a folder with config.json and safetensors instead."
        )
    config = _decoder_config(source)
    tensors = {}
    for name in source.infos:
        weight = source.tensor(name)
        if name.endswith("attn_q.weight"):
            weight = _half_split(weight, config.num_heads)
        elif name.endswith("attn_k.weight"):
            weight = _half_split(weight, config.num_kv_heads)
        tensors[_hf_name(name)] = weight
    ids = {f"{key}_token_id": model[f"tokenizer.ggml.{gguf}_token_id"] for key, gguf in _TOKEN_IDS}
    with whole_folder(folder) as new:
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        write_json(new / "config.json", config_to_hf(config) | ids)
        write_json(new / "generation_config.json", ids)
        _tokenizer(model).save(str(new / "tokenizer.json"))
        write_json(new / "tokenizer_config.json", _tokenizer_config(model, config))
    return Path(folder)


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


def _decoder_config(source: Gguf) -> DecoderConfig:
    model = source.metadata
    width, heads = model["llama.embedding_length"], model["llama.attention.head_count"]
    return DecoderConfig(
        vocab_size=source.infos["token_embd.weight"][0][0],
        num_layers=model["llama.block_count"],
        model_width=width,
        num_heads=heads,
        num_kv_heads=model["llama.attention.head_count_kv"],
        head_size=width // heads,
        mlp_width=model["llama.feed_forward_length"],
        rope_theta=model["llama.rope.freq_base"],
        # Stored in single precision, where 1e-5 reads 9.99999974e-06.
        rms_epsilon=float(f"{model['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        tie_embeddings="output.weight" not in source.infos,
        max_positions=model["llama.context_length"],
    )


def _tokenizer(model: dict[str, Any]):
    """Byte-level BPE that isolates digits first; no token is added before or after the text."""
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
    names = {f"{key}_token": f"tokenizer.ggml.{gguf}_token_id" for key, gguf in _TOKEN_IDS}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{key: tokens[model[name]] for key, name in names.items()},
        "unk_token": tokens[model["tokenizer.ggml.unknown_token_id"]],
        "chat_template": model["tokenizer.chat_template"],
        "model_max_length": config.max_positions,
        "clean_up_tokenization_spaces": False,
    }
