"""A bank of memories in plain Python, for systems whose language model works by text.

A bank is a value: every operation returns a new one, and the old one stays as it is. Texts are
embedded by an `Embed`, a function from n texts to an array `[n, E]`; the score of a memory is the
inner product of its vector with the query's.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from memr1_jax.bench.systems.protocol import Memory

Embed: TypeAlias = Callable[[Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Bank:
    """Memories by id, in the order in which they came, and their vectors `[E]`.

    An id is never used twice, so that one that a language model makes up is known to be wrong.
    """

    items: Mapping[int, Memory] = dataclasses.field(default_factory=dict)
    keys: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    next_id: int = 0

    @property
    def memories(self) -> tuple[Memory, ...]:
        """Returns all memories, the oldest first."""
        return tuple(self.items.values())


def add(bank: Bank, memories: Sequence[Memory], embed: Embed) -> Bank:
    """Stores memories under the next ids, in order; texts are embedded together.

    The new ids are `range(old.next_id, new.next_id)`.
    """
    if not memories:
        return bank
    ids = range(bank.next_id, bank.next_id + len(memories))
    keys = embed([memory.text for memory in memories])
    return Bank(
        {**bank.items, **dict(zip(ids, memories, strict=True))},
        {**bank.keys, **dict(zip(ids, keys, strict=True))},
        ids.stop,
    )


def update(bank: Bank, identity: int, memory: Memory, embed: Embed) -> Bank:
    """Replaces a memory by another; its sources are added to those of the old one.

    A KeyError tells that there is no such id.
    """
    old = bank.items[identity]
    sources = tuple(dict.fromkeys(old.sources + memory.sources))
    memory = dataclasses.replace(memory, sources=sources)
    key = embed([memory.text])[0]
    return Bank({**bank.items, identity: memory}, {**bank.keys, identity: key}, bank.next_id)


def delete(bank: Bank, identity: int) -> Bank:
    """Removes a memory; a KeyError tells that there is no such id."""
    items, keys = dict(bank.items), dict(bank.keys)
    del items[identity], keys[identity]
    return Bank(items, keys, bank.next_id)


def top(scores: np.ndarray, k: int) -> list[int]:
    """Returns the places of the `k` largest of scores `[n]`, largest first, equal ones by place."""
    return [int(place) for place in np.argsort(-scores, kind="stable")[:k]]
