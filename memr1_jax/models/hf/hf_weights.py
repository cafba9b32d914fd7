"""The decoder's parameters from and to Hugging Face folders of safetensors files."""

import dataclasses
import functools
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax import numpy as jnp
from jax.sharding import Mesh, Sharding

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.finite import RETRAIN, check_finite
from memr1_jax.models.hf.folders import own_file, read_json, whole_folder, write_json
from memr1_jax.models.hf.hf_config import config_to_hf, read_config
from memr1_jax.models.hf.hf_tensors import (
    HEAD,
    INDEX,
    SINGLE,
    Slot,
    find_tensors,
    published,
    read_leaf,
    slots_of,
)
from memr1_jax.models.precision import weight_dtype
from memr1_jax.parallel.rules import param_shardings

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
    """Reads the parameters of a model as NumPy arrays, those of layers stacked on axis L.

    Names and shapes are checked first; then tensors are read one by one into arrays allocated
    beforehand, so host memory stays near the model's own size in `dtype`; the scales of norms are
    float32 in any case. The files hold bfloat16, float16 or float32. `config` defaults to the
    folder's config.json; the one returned has a head of its own where the files do (see
    `find_tensors`). Raises UserError, naming file and tensor, for missing, unexpected or misshapen
    tensors and for missing or cut-off files.
    """
    config, leaves = _leaves(folder, config, dtype)
    params = {
        name: leaf.read(tuple(slice(size) for size in leaf.shape)) for name, leaf in leaves.items()
    }
    return traverse_util.unflatten_dict(params), config


def load_sharded(
    folder: str | os.PathLike,
    shardings: Mesh | Any,
    config: DecoderConfig | None = None,
    dtype: Any = jnp.float32,
) -> tuple[dict, DecoderConfig]:
    """Reads parameters straight onto their devices, as `load_params` reads them to the host.

    A process reads only what its own devices hold, one device's part of a leaf at a time; that
    part and one tensor are all that is on the host besides what is already on devices.

    Args:
      folder: with config.json and safetensors files, the same for all processes.
      shardings: a mesh, whose rules say where each parameter lies, or the shardings themselves as a
        tree like that of the parameters.
      config: by default the folder's config.json.
      dtype: of the parameters but the scales of norms; the files may hold another.

    Raises:
      UserError: as `load_params`.
    """
    config, leaves = _leaves(folder, config, dtype)
    if isinstance(shardings, Mesh):
        shapes = {
            name: jax.ShapeDtypeStruct(leaf.shape, weight_dtype(name[-1], dtype))
            for name, leaf in leaves.items()
        }
        shardings = param_shardings(shardings, traverse_util.unflatten_dict(shapes))
    shardings = traverse_util.flatten_dict(shardings)
    params = {name: _on_devices(leaf, shardings[name]) for name, leaf in leaves.items()}
    return traverse_util.unflatten_dict(params), config


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
    `tokenizer_folder`, though not through links that leave it. `dtype` is float32 or bfloat16. One
    shard at a time is held in host memory. The folder appears whole or not at all; an existing
    model folder is replaced. Raises ValueError where `params` is not the tree of `config`,
    UserError where files cannot be read or written or weights are not finite.
    """
    from safetensors.numpy import save_file

    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"Weights are exported as float32 or bfloat16, not {dtype}.")
    slots = slots_of(config)
    leaves = traverse_util.flatten_dict(params)
    found = {leaf: np.shape(array) for leaf, array in leaves.items()}
    expected = {slot.leaf: slot.leaf_shape for slot in slots.values()}
    if found != expected:
        raise ValueError(f"The parameters do not fit the config: {found} against {expected}.")
    check_finite(params, f"{folder} is not written", RETRAIN)
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
            file = several if len(shards) > 1 else SINGLE
            tensors = {name: _published(leaves, slots[name], dtype) for name in names}
            save_file(tensors, new / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(names, file)
        if len(shards) > 1:
            size = config.num_parameters * itemsize
            write_json(new / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
        write_json(new / "config.json", config_to_hf(config, dtype) | ids)
        if generation:
            write_json(new / "generation_config.json", dict(generation))
        for name in _TOKENIZER_FILES if source else ():
            if path := own_file(source, name):
                shutil.copyfile(path, new / name)
    return Path(folder)


_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class _Leaf(NamedTuple):
    """A leaf that is still in its files."""

    shape: tuple[int, ...]
    read: Callable[[tuple[slice, ...]], np.ndarray]  # an index of the leaf to its part


def _leaves(
    folder: str | os.PathLike, config: DecoderConfig | None, dtype: Any
) -> tuple[DecoderConfig, dict[tuple[str, ...], _Leaf]]:
    folder = Path(folder)
    config = config or read_config(folder)
    tensors = find_tensors(folder, config)
    config = dataclasses.replace(config, tie_embeddings=HEAD not in tensors)
    slots: dict[tuple, dict[str, Slot]] = {}
    for name, slot in slots_of(config).items():
        slots.setdefault(slot.leaf, {})[name] = slot
    return config, {
        leaf: _Leaf(
            next(iter(parts.values())).leaf_shape,
            functools.partial(read_leaf, tensors, parts, dtype=weight_dtype(leaf[-1], dtype)),
        )
        for leaf, parts in slots.items()
    }


def _on_devices(leaf: _Leaf, sharding: Sharding) -> jax.Array:
    """Reads the leaf as an array; each part is read once and dropped before the next."""
    owners: dict[tuple, list] = {}
    for device, index in sharding.addressable_devices_indices_map(leaf.shape).items():
        bounds = [part.indices(size)[:2] for part, size in zip(index, leaf.shape, strict=True)]
        owners.setdefault(tuple(bounds), []).append(device)
    arrays = []
    for bounds, devices in owners.items():
        part = leaf.read(tuple(slice(*bound) for bound in bounds))
        arrays += jax.block_until_ready([jax.device_put(part, device) for device in devices])
    return jax.make_array_from_single_device_arrays(leaf.shape, sharding, arrays)


def _shards(slots: dict[str, Slot], itemsize: int, limit: int) -> list[list[str]]:
    """Groups consecutive tensors in shards of at most `limit` bytes, unless one alone is larger."""
    shards, room = [], 0
    for name, slot in slots.items():
        size = math.prod(slot.shape) * itemsize
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards


def _published(leaves: Mapping, slot: Slot, dtype: str) -> np.ndarray:
    part = leaves[slot.leaf] if slot.layer is None else leaves[slot.leaf][slot.layer]
    return np.ascontiguousarray(published(np.asarray(part), slot), jnp.dtype(dtype))


def _optional_json(folder: Path | None, name: str) -> dict:
    path = own_file(folder, name) if folder else None
    return read_json(path) if path else {}
