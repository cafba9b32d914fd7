"""Published tensors: where each lives in the parameter tree, and how parts of it are read."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.models.config import DecoderConfig
from memr1_jax.models.hf.folders import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = ("F32", "F16", "BF16")


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


class Stored(NamedTuple):
    """What the header of a file says of a tensor."""

    path: Path
    shape: tuple[int, ...]
    dtype: str


def slots_of(config: DecoderConfig) -> dict[str, Slot]:
    """The place of every tensor by its published name, in the order of the forward pass."""
    d, f = config.model_width, config.mlp_width
    n, k = (config.num_heads, config.head_size), (config.num_kv_heads, config.head_size)
    vector, table, matrix = ((0,),), ((0,), (1,)), ((1,), (0,))
    layer: dict[str, tuple[tuple[str, ...], tuple, tuple]] = {}  # name -> leaf, part, groups
    layer["input_layernorm.weight"] = ("attention_norm", "scale"), (d,), vector
    for ours, theirs, heads in (("query", "q", n), ("key", "k", k), ("value", "v", k)):
        name, leaf = f"self_attn.{theirs}_proj", ("attention", ours)
        layer[f"{name}.weight"] = (*leaf, "kernel"), (d, *heads), ((1, 2), (0,))
        if config.qkv_bias:
            layer[f"{name}.bias"] = (*leaf, "bias"), heads, ((0, 1),)
    layer["self_attn.o_proj.weight"] = ("attention", "output", "kernel"), (*n, d), ((2,), (0, 1))
    layer["post_attention_layernorm.weight"] = ("mlp_norm", "scale"), (d,), vector
    layer["mlp.gate_proj.weight"] = ("mlp", "gate", "kernel"), (d, f), matrix
    layer["mlp.up_proj.weight"] = ("mlp", "up", "kernel"), (d, f), matrix
    layer["mlp.down_proj.weight"] = ("mlp", "down", "kernel"), (f, d), matrix

    embedding = (config.vocab_size, d)
    slots = {"model.embed_tokens.weight": Slot(("embed", "embedding"), None, embedding, table)}
    for index in range(config.num_layers):
        for name, (leaf, part, groups) in layer.items():
            slots[f"model.layers.{index}.{name}"] = Slot(
                ("layers", *leaf), index, (config.num_layers, *part), groups
            )
    slots["model.norm.weight"] = Slot(("final_norm", "scale"), None, (d,), vector)
    if not config.tie_embeddings:
        slots["lm_head.weight"] = Slot(("head", "embedding"), None, embedding, table)
    return slots


def find_tensors(folder: Path, config: DecoderConfig) -> dict[str, Stored]:
    """Where the folder's tensors stand, from the headers of its files alone.

    Raises:
        UserError: a file is missing or cut off, or the files do not hold exactly the tensors that
            `config` asks for, unquantised; file and tensor are named.
    """
    from safetensors import SafetensorError, safe_open

    if (folder / SINGLE).is_file():
        names = [SINGLE]
    elif (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
    else:
        raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}. Name a folder that does.")
    tensors = {}
    for path in (folder / name for name in names):
        if not path.is_file():
            raise UserError(f"{folder / INDEX} lists {path.name}, which is missing. Download it.")
        try:
            with safe_open(path, "numpy") as file:
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)
                    tensors[name] = Stored(path, tuple(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path} is not a whole safetensors file ({error}). Download it again."
            ) from error
    _check_tensors(tensors, folder, config)
    return tensors


def read_leaf(
    tensors: Mapping[str, Stored], slots: Mapping[str, Slot], index: tuple[slice, ...], dtype
) -> np.ndarray:
    """`leaf[index]` in `dtype`, of the leaf that the tensors named in `slots` make up.

    Beside the result, one tensor's part is in memory: files are opened for one tensor at a time,
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
            target[...] = _read_part(file.get_slice(name), slot, within)
    return leaf


def published(part: np.ndarray, slot: Slot) -> np.ndarray:
    """A tensor as its file has it, from its part of the leaf."""
    return part.transpose(slot.order).reshape(slot.shape)


def _read_part(tensor, slot, bounds):
    """The part of an open tensor between `bounds`, pairs on the axes of the leaf without L.

    Of axes that the file flattens, the first is cut in the file and the others afterwards: they
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
    for name, (path, shape, dtype) in tensors.items():
        if name not in slots:
            if _ignored(name, config):
                continue
            raise UserError(f"{path} holds tensor {name}, which this model has not. {advice}")
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
