"""Reads headers of safetensors files, and refuses entries of tensors that cannot be true."""

import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from memr1_jax.errors import UserError
from memr1_jax.run import json_files

_READ = ("F32", "F16", "BF16")
_LONGEST = 100_000_000  # bytes of a header, as in the safetensors library


class Stored(NamedTuple):
    """The entry of a tensor in the header of a file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def read_header(path: Path) -> dict[str, Stored]:
    """Reads the tensors of a safetensors file by name; their numbers stay on disk.

    Raises:
      UserError: the file is cut off, or its header cannot be true; the tensor is named.
    """
    from safetensors import SafetensorError, safe_open

    tensors = {}
    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                tensors[name] = Stored(path, name, tuple(part.get_shape()), part.get_dtype())
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}{_wrong_tensor(path)}). Download it "
            "again."
        ) from error
    return tensors


def check_dtype(stored: Stored) -> None:
    """Raises UserError for a tensor whose numbers are not read, such as a quantised one."""
    if stored.dtype not in _READ:
        raise UserError(
            f"{stored.path}: tensor {stored.name} is stored as {stored.dtype}. Only "
            f"{', '.join(_READ)} are read; take an unquantised checkpoint."
        )


def _wrong_tensor(path: Path) -> str:
    """Names the first tensor whose entry in the header cannot be true, where one is to blame."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json_files.loads(file.read(min(length, _LONGEST)))
            room = file.seek(0, os.SEEK_END) - 8 - length
    except (OSError, ValueError):
        return ""
    if not isinstance(header, dict):
        return ""
    header.pop("__metadata__", None)
    end = 0  # of the tensors before; there are no gaps between them
    for name, entry in sorted(header.items(), key=_offsets):
        begin, stop = _offsets((name, entry))
        if begin != end or stop > room or 8 * (stop - begin) != _bits(entry):
            return f"; tensor {name}"
        end = stop
    return ""


def _offsets(item: tuple[str, Any]) -> tuple[int, int]:
    """Returns where a tensor begins and stops; (-1, -1) of an entry that does not say so."""
    try:
        begin, stop = item[1]["data_offsets"]
        return int(begin), int(stop)
    except (TypeError, KeyError, ValueError):
        return -1, -1


def _bits(entry: dict[str, Any]) -> int:
    """Counts the bits of a tensor by its shape and the name of its type; -1 without these."""
    try:
        digits = re.search(r"\d+", entry["dtype"])
        return math.prod(entry["shape"]) * (int(digits[0]) if digits else 8)
    except (TypeError, KeyError, ValueError):  # the last for thousands of digits
        return -1
