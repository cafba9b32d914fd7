"""Published tensors: where each lives in the parameter tree, and how parts of it are read."""

import dataclasses
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.hf.folders import read_json
from memr1_jax.models.hf.headers import Stored, check_dtype, read_header

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_ROWS = 1024  # of two tables that are compared at a time


class Slot(NamedTuple):
    """The place of a published tensor in the parameter tree.

    `part` is the tensor's shape in its leaf, without L. For each axis in the file, `groups` has
    the axes of the part that are flattened into it: a kernel is [outputs, inputs] there and
    [inputs, outputs] here, with heads and their size apart.
    """

    leaf: tuple[str, ...]
    layer: int | None  # index on the leaf's L axis, None for a leaf without one
    leaf_shape: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def part(self) -> tuple[int, ...]:
        """Shape in the leaf, without L."""
        return self.leaf_shape if self.layer is None else self.leaf_shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the file."""
        return tuple(math.prod(self.part[axis] for axis in group) for group in self.groups)

    @property
    def order(self) -> tuple[int, ...]:
        """Axes of the part in the order in which they stand in the file."""
        return sum(self.groups, ())


def slots_of(config: DecoderConfig) -> dict[str, Slot]:
    """Lists each tensor's place by its published name, layer by layer."""
    d, f = config.model_width, config.mlp_width
    n, k = (config.num_heads, config.head_size), (config.num_kv_heads, config.head_size)
    vector, table, matrix = ((0,),), ((0,), (1,)), ((1,), (0,))
    layer: dict[str, tuple[tuple[str, ...], tuple, tuple]] = {}  # name -> leaf, part, groups
    for ours, theirs, heads in (("query", "q", n), ("key", "k", k), ("value", "v", k)):
        name, leaf = f"self_attn.{theirs}_proj", ("attention", ours)
        layer[f"{name}.weight"] = (*leaf, "kernel"), (d, *heads), ((1, 2), (0,))
        if config.family.qkv_bias:
            layer[f"{name}.bias"] = (*leaf, "bias"), heads, ((0, 1),)
    for ours, theirs in (("query", "q"), ("key", "k")) if config.family.qk_norm else ():
        leaf = ("attention", f"{ours}_norm", "scale")
        layer[f"self_attn.{theirs}_norm.weight"] = leaf, (config.head_size,), vector
    layer["self_attn.o_proj.weight"] = ("attention", "output", "kernel"), (*n, d), ((2,), (0, 1))
    layer["mlp.gate_proj.weight"] = ("mlp", "gate", "kernel"), (d, f), matrix
    layer["mlp.up_proj.weight"] = ("mlp", "up", "kernel"), (d, f), matrix
    layer["mlp.down_proj.weight"] = ("mlp", "down", "kernel"), (f, d), matrix

    for ours, theirs in config.family.norms:
        layer[f"{theirs}.weight"] = (ours, "scale"), (d,), vector

    embedding = (config.vocab_size, d)
    slots = {_EMBEDDING: Slot(("embed", "embedding"), None, embedding, table)}
    for index in range(config.num_layers):
        for name, (leaf, part, groups) in layer.items():
            slots[f"model.layers.{index}.{name}"] = Slot(
                ("layers", *leaf), index, (config.num_layers, *part), groups
            )
    slots["model.norm.weight"] = Slot(("final_norm", "scale"), None, (d,), vector)
    if not config.tie_embeddings:
        slots[HEAD] = Slot(("head", "embedding"), None, embedding, table)
    return slots


def find_tensors(folder: Path, config: DecoderConfig) -> dict[str, Stored]:
    """Finds where the folder's tensors lie, from the headers of its files.

    As in transformers 5, a head that differs from the embedding is used, with a warning, though
    `config` ties the two: the result then has it, and has none where they are tied. Where the
    files of a tied model hold the head alone, it is the embedding too.

    Raises:
        UserError: a file is missing or cut off, or the files do not hold exactly the tensors that
            `config` asks for, unquantised; file and tensor are named.
    """
    tensors = _read_headers(folder)
    if config.family.wrapper:
        tensors = _language_part(tensors)
    if config.tie_embeddings and HEAD in tensors and _EMBEDDING not in tensors:
        tensors[_EMBEDDING] = tensors.pop(HEAD)
    two_tables = config.tie_embeddings and HEAD in tensors
    asked = dataclasses.replace(config, tie_embeddings=False) if two_tables else config
    _check_tensors(tensors, folder, asked)
    if two_tables and _same(tensors[_EMBEDDING], tensors[HEAD]):
        del tensors[HEAD]
    elif two_tables:
        warnings.warn(
            f"config.json in {folder} ties lm_head to the embedding, but the files hold another "
            "lm_head, which is used. Set tie_word_embeddings to false there.",
            stacklevel=2,
        )
    return tensors


def _language_part(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Picks the language model's tensors, by their own names, out of a model that also sees."""
    for prefix, own in (("language_model.", ""), ("model.language_model.", "model.")):
        if any(name.startswith(prefix) for name in tensors):
            part = {n: tensor for n, tensor in tensors.items() if n.startswith((prefix, HEAD))}
            return {n.replace(prefix, own, 1): tensor for n, tensor in part.items()}
    return tensors


def _read_headers(folder: Path) -> dict[str, Stored]:
    """Reads the headers of a folder's files: all their tensors by name."""
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}. Name a folder that does.")
    index = _read_index(folder / INDEX)
    tensors = {}
    for name in sorted(set(index.values())):
        if not os.path.isfile(folder / name):
            raise UserError(f"{folder / INDEX} lists {name}, which is missing. Download it.")
        held = read_header(folder / name)
        if twice := sorted(tensors.keys() & held):
            raise UserError(
                f"Both {tensors[twice[0]].path} and {name} hold tensor {twice[0]}. Download the "
                "folder again."
            )
        tensors |= held
    for tensor, name in index.items():
        if tensor not in tensors or tensors[tensor].path.name != name:
            raise UserError(
                f"{folder / INDEX} says that {name} holds tensor {tensor}, but it does not. "
                "Download the folder again."
            )
    return tensors


def _read_index(path: Path) -> dict[str, str]:
    """Reads the file name of every tensor; UserError where one names no file of the folder."""
    index = read_json(path).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise UserError(f"{path} must map names of tensors to files under weight_map.")
    for tensor, name in index.items():
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
            raise UserError(
                f"{path} gives {name!r:.80} as the file of tensor {tensor}. Only names of files in "
                "the same folder are read."
            )
    return index


def _same(first: Stored, second: Stored) -> bool:
    """Tells whether two tables of one shape hold the same numbers, reading a few rows at a time."""
    from safetensors import safe_open

    rows = first.shape[0]
    with safe_open(first.path, "numpy") as one, safe_open(second.path, "numpy") as other:
        tables = one.get_slice(first.name), other.get_slice(second.name)
        return all(
            np.array_equal(*(t[row : min(row + _ROWS, rows)].astype(np.float32) for t in tables))
            for row in range(0, rows, _ROWS)
        )


def read_leaf(
    tensors: Mapping[str, Stored], slots: Mapping[str, Slot], index: tuple[slice, ...], dtype
) -> np.ndarray:
    """Reads `leaf[index]` in `dtype`, of the leaf made up of the tensors named in `slots`.

    Besides the result, one tensor's part is in memory: files are opened for one tensor at a time,
    because the pages of an open file that were read count as memory of the process.
    """
    from safetensors import safe_open

    shape = next(iter(slots.values())).leaf_shape
    bounds = [part.indices(size)[:2] for part, size in zip(index, shape, strict=True)]
    leaf = np.empty([stop - start for start, stop in bounds], dtype)
    for name, slot in slots.items():
        if slot.layer is None:
            target, within = leaf, bounds
        elif slot.layer in range(*bounds[0]):
            target, within = leaf[slot.layer - bounds[0][0]], bounds[1:]
        else:
            continue
        with safe_open(tensors[name].path, "numpy") as file:
            target[...] = _read_part(file.get_slice(tensors[name].name), slot, within)
    return leaf


def published(part: np.ndarray, slot: Slot) -> np.ndarray:
    """Returns a tensor as its file has it, from its part of the leaf."""
    return part.transpose(slot.order).reshape(slot.shape)


def _read_part(tensor, slot, bounds):
    """Reads the part of an open tensor between `bounds`, pairs on the leaf's axes without L.

    The first of axes that the file flattens is cut in the file, the others afterwards: they
    are the size of heads, which sharding leaves whole.
    """
    cuts, sizes, within = [], [], []
    for first, *rest in slot.groups:
        start, stop = bounds[first]
        unit = math.prod(slot.part[axis] for axis in rest)
        cuts.append(slice(start * unit, stop * unit))
        sizes += [stop - start, *(slot.part[axis] for axis in rest)]
        within += [slice(None), *(slice(*bounds[axis]) for axis in rest)]
    part = tensor[tuple(cuts)].reshape(sizes)[tuple(within)]
    return part.transpose(np.argsort(slot.order))


def _check_tensors(tensors, folder, config):
    """Raises UserError unless the files hold exactly the tensors that the config asks for."""
    slots = slots_of(config)
    advice = "The weights and config.json do not belong together, or a download is not complete."
    if missing := [name for name in slots if name not in tensors]:
        raise UserError(
            f"{folder} lacks tensor {missing[0]}"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}. {advice}"
        )
    for name, stored in tensors.items():
        path = stored.path
        if name not in slots:
            if name.endswith(".rotary_emb.inv_freq"):  # a copy that some published files carry
                continue
            raise UserError(f"{path} holds tensor {name}, which this model has not. {advice}")
        if stored.shape != slots[name].shape:
            raise UserError(
                f"{path}: tensor {name} has shape {list(stored.shape)} where config.json "
                f"asks for {list(slots[name].shape)}. {advice}"
            )
        check_dtype(stored)
