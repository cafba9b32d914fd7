"""The banks that the Answer Agent learns on, kept in the run folder for a resumed run."""

import json
import os
from pathlib import Path

import numpy as np

from memr1_jax.agents.ingest import Ingestion
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.run.files import write_bytes_atomic

_SPEAKERS = ("first", "second")


def write_banks(path: str | os.PathLike, ingestion: Ingestion, origin: str) -> None:
    """Writes both speakers' banks as one safetensors file, whole or not at all.

    `origin` tells what made them; `read_banks` asks for the same.
    """
    from safetensors.numpy import save

    arrays = {
        f"{speaker}.{name}": np.ascontiguousarray(array)
        for speaker, bank in zip(_SPEAKERS, ingestion.banks, strict=True)
        for name, array in vars(bank).items()
    }
    metadata = {"origin": origin, "counts": json.dumps(ingestion.counts)}
    write_bytes_atomic(path, save(arrays, metadata))


def read_banks(path: str | os.PathLike, origin: str) -> Ingestion | None:
    """What `write_banks` wrote, or None where there is no such file or it has another origin."""
    from safetensors import safe_open

    if not Path(path).is_file():
        return None
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        if metadata["origin"] != origin:
            return None
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    banks = tuple(
        MemoryBank(**{name.split(".", 1)[1]: x for name, x in arrays.items() if name.startswith(s)})
        for s in _SPEAKERS
    )
    return Ingestion(banks, json.loads(metadata["counts"]))
