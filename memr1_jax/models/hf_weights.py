"""The decoder's parameters from and to Hugging Face folders of safetensors files."""

import contextlib
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util
from jax import numpy as jnp

from memr1_jax.errors import UserError
from memr1_jax.models.config import DecoderConfig
from memr1_jax.models.folders import read_json, whole_folder, write_json
from memr1_jax.models.hf_config import config_from_hf, config_to_hf

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = ("F32", "F16", "BF16")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


def load_params(
    folder: str | os.PathLike, config: DecoderConfig | None = None, dtype: Any = jnp.float32
) -> tuple[dict, DecoderConfig]:
    """Reads the parameters of a Llama or Qwen2 model as NumPy arrays, layers stacked on axis L.

    Names and shapes are checked first; then tensors are read one by one into arrays allocated
    beforehand, so host memory stays near the model's own size in `dtype`. The files hold bfloat16,
    float16 or float32. `config` defaults to the folder's config.json. Raises UserError, naming file
    and tensor, for missing, unexpected or misshapen tensors and for missing or cut-off files.
    """
    folder = Path(folder)
    config = config or config_from_hf(read_json(folder / "config.json"))
    slots = _slots(config)
    leaves = {}
    with contextlib.ExitStack() as stack:
        tensors = _open(folder, stack)
        _check_tensors(tensors, slots, folder, config)
        for name, slot in slots.items():
            if slot.leaf not in leaves:
                leaves[slot.leaf] = np.empty(slot.leaf_shape, dtype)
            slot.view(leaves[slot.leaf])[...] = tensors[name].file.get_tensor(name)
    return traverse_util.unflatten_dict(leaves), config


def export_params(
    folder: str | os.PathLike,
    params: Mapping[str, Any],
    config: DecoderConfig,
    *,
    tokenizer_folder: str | os.PathLike | None = None,
    generation_config: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    max_shard_bytes: int = 5 * 10**9,
) -> Path:
    """Writes a folder that transformers and vLLM load: config.json, safetensors, tokenizer files.

    Tokenizer files, and generation_config.json unless one is given, are copied from
    `tokenizer_folder`. `dtype` is float32 or bfloat16. One shard at a time is held in host memory.
    The folder appears whole or not at all; an existing model folder is replaced. Raises ValueError
    where `params` is not the tree of `config`, UserError where files cannot be read or written.
    """
    from safetensors.numpy import save_file

    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"Weights are exported as float32 or bfloat16, not {dtype}.")
    slots = _slots(config)
    leaves = traverse_util.flatten_dict(params)
    found = {leaf: np.shape(array) for leaf, array in leaves.items()}
    expected = {slot.leaf: slot.leaf_shape for slot in slots.values()}
    if found != expected:
        raise ValueError(f"The parameters do not fit the config: {found} against {expected}.")
    source = Path(tokenizer_folder) if tokenizer_folder else None
    generation = generation_config or _optional_json(source, "generation_config.json")
    origin = {**_optional_json(source, "config.json"), **generation}
    ids = {key: origin[key] for key in _TOKEN_IDS if key in origin}
    itemsize = jnp.dtype(dtype).itemsize
    shards = _shards(slots, itemsize, max_shard_bytes)
    with whole_folder(folder) as new:
        weight_map = {}
        for number, names in enumerate(shards, start=1):
            several = f"model-{number:05}-of-{len(shards):05}.safetensors"
            file = several if len(shards) > 1 else _SINGLE
            tensors = {name: _published(leaves, slots[name], dtype) for name in names}
            save_file(tensors, new / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(names, file)
        if len(shards) > 1:
            size = config.num_parameters * itemsize
            write_json(new / _INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
        write_json(new / "config.json", config_to_hf(config, dtype) | ids)
        if generation:
            write_json(new / "generation_config.json", dict(generation))
        for name in _TOKENIZER_FILES if source else ():
            if (source / name).is_file():
                shutil.copyfile(source / name, new / name)
    return Path(folder)


_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class _Slot(NamedTuple):
    """Where a published tensor lives in the parameter tree."""

    leaf: tuple[str, ...]
    layer: int | None  # index on the leaf's L axis, None for a leaf without one
    leaf_shape: tuple[int, ...]
    shape: tuple[int, ...]  # in the file; [out, in] for kernels

    def view(self, leaf):
        """The tensor's part of its leaf, seen in the file's layout."""
        part = leaf if self.layer is None else leaf[self.layer]
        if self.leaf[-1] == "kernel":
            return part.reshape(self.shape[::-1]).T
        return part.reshape(self.shape)


def _slots(config: DecoderConfig) -> dict[str, _Slot]:
    """The place of every tensor by its published name, in the order of the forward pass."""
    d, f = config.model_width, config.mlp_width
    n, k = (config.num_heads, config.head_size), (config.num_kv_heads, config.head_size)
    layer: dict[str, tuple[tuple[str, ...], tuple, tuple]] = {}  # name -> leaf, inputs, outputs
    layer["input_layernorm.weight"] = ("attention_norm", "scale"), (), (d,)
    for ours, theirs, heads in (("query", "q", n), ("key", "k", k), ("value", "v", k)):
        layer[f"self_attn.{theirs}_proj.weight"] = ("attention", ours, "kernel"), (d,), heads
        if config.qkv_bias:
            layer[f"self_attn.{theirs}_proj.bias"] = ("attention", ours, "bias"), (), heads
    layer["self_attn.o_proj.weight"] = ("attention", "output", "kernel"), n, (d,)
    layer["post_attention_layernorm.weight"] = ("mlp_norm", "scale"), (), (d,)
    layer["mlp.gate_proj.weight"] = ("mlp", "gate", "kernel"), (d,), (f,)
    layer["mlp.up_proj.weight"] = ("mlp", "up", "kernel"), (d,), (f,)
    layer["mlp.down_proj.weight"] = ("mlp", "down", "kernel"), (f,), (d,)

    table = (config.vocab_size, d)
    slots = {"model.embed_tokens.weight": _Slot(("embed", "embedding"), None, table, table)}
    for index in range(config.num_layers):
        for name, (leaf, inputs, outputs) in layer.items():
            shape = (math.prod(outputs), *([math.prod(inputs)] if inputs else []))
            leaf_shape = (config.num_layers, *inputs, *outputs)
            slots[f"model.layers.{index}.{name}"] = _Slot(
                ("layers", *leaf), index, leaf_shape, shape
            )
    slots["model.norm.weight"] = _Slot(("final_norm", "scale"), None, (d,), (d,))
    if not config.tie_embeddings:
        slots["lm_head.weight"] = _Slot(("head", "embedding"), None, table, table)
    return slots


class _Tensor(NamedTuple):
    path: Path
    file: Any  # an open safetensors file


def _open(folder: Path, stack: contextlib.ExitStack) -> dict[str, _Tensor]:
    """Opens the folder's weight files and returns where each tensor stands."""
    from safetensors import SafetensorError, safe_open

    if (folder / _SINGLE).is_file():
        names = [_SINGLE]
    elif (folder / _INDEX).is_file():
        names = sorted(set(read_json(folder / _INDEX).get("weight_map", {}).values()))
    else:
        raise UserError(f"{folder} has neither {_SINGLE} nor {_INDEX}. Name a folder that does.")
    tensors = {}
    for path in (folder / name for name in names):
        if not path.is_file():
            raise UserError(f"{folder / _INDEX} lists {path.name}, which is missing. Download it.")
        try:
            file = stack.enter_context(safe_open(path, "numpy"))
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path} is not a whole safetensors file ({error}). Download it again."
            ) from error
        tensors |= {name: _Tensor(path, file) for name in file.keys()}  # noqa: SIM118
    return tensors


def _check_tensors(tensors, slots, folder, config):
    """Raises UserError unless the files hold exactly the tensors that the config asks for."""
    advice = "The weights and config.json do not belong together, or a download is not complete."
    if missing := [name for name in slots if name not in tensors]:
        raise UserError(
            f"{folder} lacks tensor {missing[0]}"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}. {advice}"
        )
    for name, (path, file) in tensors.items():
        if name not in slots:
            if _ignored(name, config):
                continue
            raise UserError(f"{path} holds tensor {name}, which this model has not. {advice}")
        part = file.get_slice(name)
        shape, dtype = tuple(part.get_shape()), part.get_dtype()
        if shape != slots[name].shape:
            raise UserError(
                f"{path}: tensor {name} has shape {list(shape)} where config.json asks for "
                f"{list(slots[name].shape)}. {advice}"
            )
        if dtype not in _DTYPES:
            raise UserError(
                f"{path}: tensor {name} is stored as {dtype}. Only {', '.join(_DTYPES)} are read; "
                "take an unquantised checkpoint."
            )


def _ignored(name: str, config: DecoderConfig) -> bool:
    """Copies that some published files carry: a tied head, the rotary frequencies."""
    if name == "lm_head.weight":
        return config.tie_embeddings
    return name.endswith(".rotary_emb.inv_freq")


def _shards(slots: dict[str, _Slot], itemsize: int, limit: int) -> list[list[str]]:
    """Consecutive tensors, at most `limit` bytes in a shard unless one alone is larger."""
    shards, room = [], 0
    for name, slot in slots.items():
        size = math.prod(slot.shape) * itemsize
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards


def _published(leaves: Mapping, slot: _Slot, dtype: str) -> np.ndarray:
    part = leaves[slot.leaf] if slot.layer is None else leaves[slot.leaf][slot.layer]
    return np.ascontiguousarray(slot._replace(layer=None).view(np.asarray(part)), jnp.dtype(dtype))


def _optional_json(folder: Path | None, name: str) -> dict:
    return read_json(folder / name) if folder and (folder / name).is_file() else {}
