"""Brings requests to the few shapes that are compiled: powers of two of rows, slots and times.

Axis letters: B rows of a batch, M slots of a bank.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from memr1_jax.memory.bank import MemoryBank

MOST_ROWS = 32  # of one batch

Item = TypeVar("Item")


def parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Splits a list into parts of at most `MOST_ROWS`."""
    for start in range(0, len(items), MOST_ROWS):
        yield items[start : start + MOST_ROWS]


def bucket(count: int, least: int = 1) -> int:
    """Returns the smallest `least` times a power of two that is not below `count`."""
    while least < count:
        least *= 2
    return least


def padded(rows: Sequence[Any]) -> Any:
    """Stacks pytrees of equal shapes `[...]` as `[B, ...]`; the last fills up to a bucket."""
    rows = [*rows, *[rows[-1]] * (bucket(len(rows)) - len(rows))]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def grown(bank: MemoryBank, capacity: int) -> MemoryBank:
    """Adds dead slots to a bank with NumPy leaves until it has `capacity` of them."""
    more = capacity - len(bank.alive)

    def grow(leaf):
        if np.ndim(leaf) == 0 or not more:
            return leaf
        return np.pad(leaf, ((0, more), *[(0, 0)] * (np.ndim(leaf) - 1)))

    return jax.tree.map(grow, bank)
