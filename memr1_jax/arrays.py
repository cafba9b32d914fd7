"""Records of arrays that are made on the host."""

from collections.abc import Callable
from typing import Any, TypeVar

Record = TypeVar("Record")


def on_host(record: Callable[..., Record], *leaves: Any, **named: Any) -> Record:
    """Makes a record with NumPy leaves, which `jit` and `device_put` take as device arrays."""
    return record(*leaves, **named)
