"""The banks that the Answer Agent learns on, kept in the run folder for a resumed run."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from memr1_jax.agents.ingest import Ingestion
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.run.files import write_bytes_atomic

_SPEAKERS = ("first", "second")


def write_banks(path: str | os.PathLike, ingestion: Ingestion, origin: str) -> None:
    """Writes both speakers' banks as one safetensors file, whole or not at all.

    `origin` tells their source; `read_banks` asks for the same.
    """
    from safetensors.numpy import save

    arrays = {
        f"{speaker}.{name}": np.ascontiguousarray(array)
        for speaker, bank in zip(_SPEAKERS, ingestion.banks, strict=True)
        for name, array in vars(bank).items()
    }
    metadata = {"origin": origin, "counts": json.dumps(ingestion.counts)}
    metadata["sha256"] = _digest(arrays, metadata)
    write_bytes_atomic(path, save(arrays, metadata))


def read_banks(path: str | os.PathLike, origin: str) -> Ingestion | None:
    """Reads what `write_banks` wrote; None where there is no such file or it has another origin.

    Raises:
      UserError: the file is damaged.
    """
    if not Path(path).is_file():
        return None
    try:
        return _read(path, origin)
    except Exception as error:  # damage surfaces as nearly any type of exception
        raise UserError(
            f"The banks in {path} are damaged ({error}). Remove the file: a resumed run builds them"
            " again."
        ) from error


def _read(path, origin):
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        if metadata["origin"] != origin:
            return None
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # Files of older versions have no digest.
    digest = metadata.pop("sha256", None)
    if digest is not None and digest != _digest(arrays, metadata):
        raise ValueError("the checksum differs")
    banks = tuple(
        MemoryBank(**{name.split(".", 1)[1]: x for name, x in arrays.items() if name.startswith(s)})
        for s in _SPEAKERS
    )
    return Ingestion(banks, json.loads(metadata["counts"]))


def _digest(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
