"""Brings requests to the few shapes that are compiled.

Axis letters: B rows of a batch, M slots of a bank.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from memr1_jax.memory.bank import MemoryBank

SIZES = (1, 8, 32)  # rows of a batch; each is compiled once

Item = TypeVar("Item")


def parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Splits a list into batches that fill one of `SIZES`, or more than half of it."""
    left = len(items)
    while left:
        size = rows_of(left)
        if size >= 2 * left and size > 1:
            size = max(size for size in SIZES if size <= left)
        size = min(size, left)
        yield items[len(items) - left : len(items) - left + size]
        left -= size


def rows_of(count: int) -> int:
    """Returns the rows of the batch that `count` requests are computed in."""
    return next((size for size in SIZES if size >= count), SIZES[-1])


def bucket(count: int, least: int = 1) -> int:
    """Returns the smallest `least` times a power of two that is not below `count`."""
    while least < count:
        least *= 2
    return least


def padded(rows: Sequence[Any]) -> Any:
    """Stacks pytrees of equal shapes `[...]` as `[B, ...]`; the last fills up a batch."""
    rows = [*rows, *[rows[-1]] * (rows_of(len(rows)) - len(rows))]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def grown(bank: MemoryBank, capacity: int) -> MemoryBank:
    """Adds dead slots to a bank with NumPy leaves until it has `capacity` of them."""
    more = capacity - len(bank.alive)

    def grow(leaf):
        if np.ndim(leaf) == 0 or not more:
            return leaf
        return np.pad(leaf, ((0, more), *[(0, 0)] * (np.ndim(leaf) - 1)))

    return jax.tree.map(grow, bank)
