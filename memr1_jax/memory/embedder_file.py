"""Keeps an embedder in a file, so that trained agents retrieve as they did in training."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.memory.embedder import Concatenation, Embedder, HashedWords, StaticVectors
from memr1_jax.text.folding import UnicodeTables

_DAMAGE = (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
_PARTS = (HashedWords, UnicodeTables, StaticVectors, Concatenation)
_KINDS = {kind.__name__: kind for kind in _PARTS}


def write_embedder(path: str | os.PathLike, embedder: Embedder) -> None:
    """Writes an embedder as safetensors; its structure goes into the header."""
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    structure = _take_apart(embedder, "", arrays)
    save_file(arrays, os.fspath(path), metadata={"embedder": json.dumps(structure)})


def read_embedder(path: str | os.PathLike) -> Embedder:
    """Reads an embedder with NumPy leaves; UserError where the file does not hold one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            structure = json.loads(file.metadata()["embedder"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _put_together(structure, "", arrays)
    except (*_DAMAGE, SafetensorError) as error:
        raise UserError(
            f"{Path(path)} does not hold the word statistics of a run"
            f" ({type(error).__name__}: {error}). Export the agents again, or delete the file to"
            " have the statistics made from the texts that are remembered."
        ) from error


def _take_apart(part, prefix, arrays):
    structure = {"kind": type(part).__name__, "static": {}, "parts": {}}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            structure["parts"][field.name] = _take_apart(value, f"{prefix}{field.name}.", arrays)
        elif not field.metadata.get("pytree_node", True):
            structure["static"][field.name] = value
        else:
            arrays[prefix + field.name] = np.ascontiguousarray(value)
    return structure


def _put_together(structure, prefix, arrays):
    kind = _KINDS[structure["kind"]]
    values = dict(structure["static"])
    for field in dataclasses.fields(kind):
        if field.name in structure["parts"]:
            part = structure["parts"][field.name]
            values[field.name] = _put_together(part, f"{prefix}{field.name}.", arrays)
        elif field.name not in values:
            values[field.name] = arrays[prefix + field.name]
    return kind(**values)
