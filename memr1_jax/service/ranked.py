"""Search by vectors in the database: pgvector compares, and no block is needed."""

import collections
import dataclasses

import numpy as np
import sqlalchemy as sa

from memr1_jax.inference.agents import Agents
from memr1_jax.service.filters import Test
from memr1_jax.service.pgvector import WIDEST
from memr1_jax.service.queries import scope_of
from memr1_jax.service.scope import Scope
from memr1_jax.service.search import Item, Shelves, vectors_of
from memr1_jax.service.store import Store

_SPARE = 100  # memories that are read beyond those wanted, as some may fail the test


def searcher(store: Store, fit_words: bool, agents: Agents | None = None) -> type[Shelves]:
    """Returns what searches a store: the database where it can, else blocks in this process.

    It can neither weigh words by the memories of a scope nor hold vectors of any width, which is
    known once the agents are loaded.
    """
    if not store.pgvector or fit_words:
        return Shelves
    return Shelves if agents is not None and len(agents.query("")) > WIDEST else Ranked


class Ranked(Shelves):
    """Finds the best memories by pgvector; the bank of an `add` is still read into a shelf."""

    name = "pgvector"

    def best(
        self, scope: Scope, query: np.ndarray, test: Test, most: int, each: int | None = None
    ) -> list[tuple[Item, float]]:
        """Returns what `Shelves.best` does, from the database.

        The shelves answer where a test leaves too few of the nearest, as only Python knows whether
        others pass, and where vectors are missing, as servers with another embedder write theirs.
        """
        wanted = most if each is None else each
        if not wanted:
            return []
        first = wanted + _SPARE
        rows = self._rows(scope, query, test, first, each)
        seen: collections.Counter = collections.Counter()
        passed: collections.Counter = collections.Counter()
        found = []
        for row in rows:
            exact = scope_of(row)
            group = None if each is None else (exact, row.state["speaker"])
            seen[group] += 1
            state = row.state | dataclasses.asdict(exact)
            if passed[group] < wanted and row.score is not None and test(state):
                passed[group] += 1
                vector = np.frombuffer(row.vector, np.float32)
                found.append(((row.id, state, vector), row.score))
        cut = any(seen[group] == first and passed[group] < wanted for group in seen)
        if cut or rows and rows[0].score is None:
            return super().best(scope, query, test, most, each)
        return found[:most]

    def _rows(self, scope: Scope, query: np.ndarray, test: Test, first: int, each) -> list[sa.Row]:
        """Reads the nearest; vectors that are missing are made and kept before."""
        embedder, more = self._agents.digests["embedder"], {"by_speaker": each is not None}
        more["speaker"] = test.speaker
        rows = self._store.nearest(scope, embedder, query, first, **more)
        if rows and rows[0].score is None:
            for (exact, version), states in self._store.without_vector(scope, embedder).items():
                made = vectors_of(self._agents, list(states.values()))
                kept = {key: vector.tobytes() for key, vector in zip(states, made, strict=True)}
                self._store.set_vectors(exact, embedder, kept, version)
            rows = self._store.nearest(scope, embedder, query, first, **more)
        return rows
