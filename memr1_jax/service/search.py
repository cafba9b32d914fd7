"""Search by vectors: each scope's memories in one float32 block, kept up with the database.

Axis letters: n memories of a scope, E retrieval width.
"""

import collections
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import numpy as np

from memr1_jax.inference.agents import Agents
from memr1_jax.service.filters import Test
from memr1_jax.service.records import State
from memr1_jax.service.scope import Scope
from memr1_jax.service.store import Store
from memr1_jax.service.undo import bare

Item = tuple[str, State, np.ndarray]  # a memory's id, its state and its vector [E]

_MOST_WEIGHT = 4.0  # of a word that few memories have, in nats, as in `build_tfidf`
_MOST = 500_000  # memories kept in all shelves; the least recently used scopes are dropped


def token_rows(agents: Agents, states: list[State]) -> list[list[int]]:
    """Returns the tokens of memories: those the manager wrote, or, where other, the text's."""
    own = agents.digests["tokenizer"]
    return [
        state["tokens"]
        if state["tokens"] and state["tokenizer"] == own
        else agents.tokens(state["text"])
        for state in states
    ]


def vectors_of(agents: Agents, states: list[State]) -> np.ndarray:
    """Embeds memories: float32 `[n, E]`."""
    if not states:
        return np.zeros((0, len(agents.query(""))), np.float32)
    return np.asarray(agents.vectors(token_rows(agents, states)), np.float32)


def fitted(query: np.ndarray, used: np.ndarray, count: int, words: int) -> np.ndarray:
    """Weighs the words of a query by how few of the memories have them, and keeps its length.

    Args:
      query: `[E]`.
      used: `[E]`, in how many memories a feature is not 0.
      count: of all memories.
      words: the first so many features are words.
    """
    weights = np.ones_like(query)
    weights[:words] = np.log((count + 1) / (used[:words] + 0.5)).clip(0, _MOST_WEIGHT)
    weighted = query * weights
    norm = float(np.linalg.norm(weighted))
    return weighted * (float(np.linalg.norm(query)) / norm) if norm else query


@dataclasses.dataclass
class Shelf:
    """The memories of exactly one scope; a reader holds `lock`."""

    scope: Scope
    version: int = 0
    event: int = 0  # the last one that was read
    ids: list[str] = dataclasses.field(default_factory=list)
    place: dict[str, int] = dataclasses.field(default_factory=dict)
    states: dict[str, State] = dataclasses.field(default_factory=dict)
    block: np.ndarray | None = None  # [E, at least n], so that a sparse query reads few rows
    used: np.ndarray | None = None  # [E], in how many memories a feature is not 0
    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock)

    def vector(self, memory: str) -> np.ndarray:
        """Returns the vector `[E]` of a memory."""
        return self.block[:, self.place[memory]].copy()

    def scores(self, query: np.ndarray) -> np.ndarray:
        """Returns the inner products `[n]` with a query `[E]`, in the order of `ids`."""
        if not self.ids:
            return np.zeros(0, np.float32)
        used = np.flatnonzero(query)  # of TF-IDF a few, of other embedders all
        rows = self.block[:, : len(self.ids)]
        if len(used) > len(query) // 4:
            return query @ rows
        scores = np.zeros(len(self.ids), np.float32)
        for feature in used:  # without a copy of these rows
            scores += query[feature] * rows[feature]
        return scores

    def put(self, states: Mapping[str, State], vectors: np.ndarray) -> None:
        """Writes memories with their vectors `[len(states), E]`."""
        self._grow(len(self.ids) + len(states), vectors.shape[-1])
        for (memory, state), vector in zip(states.items(), vectors, strict=True):
            if memory not in self.place:
                self.place[memory] = len(self.ids)
                self.ids.append(memory)
            else:
                self.used -= self.block[:, self.place[memory]] != 0
            self.states[memory] = state
            self.block[:, self.place[memory]] = vector
            self.used += vector != 0

    def drop(self, memory: str) -> None:
        """Takes a memory away; the last one takes its row."""
        if memory not in self.place:
            return
        place, last = self.place.pop(memory), self.ids.pop()
        del self.states[memory]
        self.used -= self.block[:, place] != 0
        if last != memory:
            self.ids[place], self.place[last] = last, place
            self.block[:, place] = self.block[:, len(self.ids)]

    def _grow(self, count: int, width: int) -> None:
        if self.block is None or count > self.block.shape[1]:
            block = np.zeros((width, max(64, 2 * count)), np.float32)
            if self.block is None:
                self.used = np.zeros(width, np.int64)
            else:
                block[:, : len(self.ids)] = self.block[:, : len(self.ids)]
            self.block = block


class Shelves:
    """The shelves of all scopes that were read lately; one instance serves all threads."""

    name = "blocks of float32"  # of what searches

    def __init__(self, store: Store, agents: Agents, words: int = 0):
        """Reads nothing yet; the first `words` features are weighed by the memories of a scope."""
        self._store, self._agents, self._words = store, agents, words
        self._shelves: OrderedDict[Scope, Shelf] = OrderedDict()
        self._lock = threading.Lock()

    def within(self, scope: Scope) -> Iterator[Shelf]:
        """Goes through the shelves of all scopes that have the ids of this one, as they are now."""
        for exact, version in self._store.versions(scope).items():
            yield self._current(exact, version)

    def exactly(self, scope: Scope) -> Shelf:
        """Returns the shelf of one scope as it is now."""
        return self._current(scope, -1)

    def best(
        self, scope: Scope, query: np.ndarray, test: Test, most: int, each: int | None = None
    ) -> list[tuple[Item, float]]:
        """Returns the memories under a scope that pass a test with their scores, best first.

        Args:
          scope: whose memories.
          query: `[E]`.
          test: what a memory's state must pass.
          most: how many are looked at, at most.
          each: how many of a speaker and an exact scope are returned, at most; None for all.
        """
        found: list[tuple[Item, float]] = []
        for shelf in self.within(scope):
            with shelf.lock:
                scores = shelf.scores(self.fitted(query, shelf))
                taken: collections.Counter[str] = collections.Counter()
                for place in _descending(scores, 4 * most):
                    memory = shelf.ids[place]
                    state = shelf.states[memory]
                    if not test(state):
                        continue
                    taken[state["speaker"]] += 1
                    if each is None or taken[state["speaker"]] <= each:
                        item = (memory, state, shelf.vector(memory))
                        found.append((item, float(scores[place])))
                    if taken.total() >= most:
                        break
        return sorted(found, key=lambda item: -item[1])[:most]

    def fitted(self, query: np.ndarray, shelf: Shelf) -> np.ndarray:
        """Weighs a query by the memories of a shelf, where that was asked for."""
        if not self._words or not shelf.ids:
            return query
        return fitted(query, shelf.used, len(shelf.ids), self._words)

    def fitted_to(self, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Weighs a query by memories given as vectors `[n, E]`, where that was asked for."""
        if not self._words or not len(vectors):
            return query
        return fitted(query, np.count_nonzero(vectors, axis=0), len(vectors), self._words)

    def clear(self) -> None:
        """Forgets all shelves."""
        with self._lock:
            self._shelves.clear()

    def _current(self, scope: Scope, version: int) -> Shelf:
        with self._lock:
            shelf = self._shelves.setdefault(scope, Shelf(scope))
            self._shelves.move_to_end(scope)
            count = sum(len(shelf.ids) for shelf in self._shelves.values())
            while count > _MOST and len(self._shelves) > 1:
                count -= len(self._shelves.popitem(last=False)[1].ids)
        with shelf.lock:
            if shelf.event and version != shelf.version:
                self._follow(shelf)
            if not shelf.event:
                self._load(shelf)
        return shelf

    def _load(self, shelf: Shelf) -> None:
        name = self._agents.digests["embedder"]
        found = self._store.snapshot(shelf.scope, name)
        missing = [memory for memory in found.states if memory not in found.vectors]
        made = vectors_of(self._agents, [found.states[memory] for memory in missing])
        fresh = dict(zip(missing, made, strict=True))
        self._store.set_vectors(
            shelf.scope,
            name,
            {memory: vector.tobytes() for memory, vector in fresh.items()},
            found.version,
        )
        if found.states:
            rows = [
                fresh[memory]
                if memory in fresh
                else np.frombuffer(found.vectors[memory], np.float32)
                for memory in found.states
            ]
            shelf.put(found.states, np.stack(rows))
        shelf.version, shelf.event = found.version, found.event

    def _follow(self, shelf: Shelf) -> None:
        version, events = self._store.since(shelf.scope, shelf.event)
        if version < shelf.version:  # everything was deleted meanwhile, by another process
            shelf.ids, shelf.place, shelf.states, shelf.block = [], {}, {}, None
            shelf.version = shelf.event = 0
            return
        ids = dataclasses.asdict(shelf.scope)
        last = {event.memory: event.after for event in events if event.memory is not None}
        for memory, after in last.items():
            if after is None:
                shelf.drop(memory)
        kept = {memory: after | ids for memory, after in last.items() if after is not None}
        same = {
            memory: state
            for memory, state in kept.items()
            if memory in shelf.states and shelf.states[memory]["text"] == state["text"]
        }
        shelf.states.update(same)
        new = {memory: state for memory, state in kept.items() if memory not in same}
        if new:
            shelf.put(new, vectors_of(self._agents, [bare(state) for state in new.values()]))
        shelf.version = version
        if events:
            shelf.event = events[-1].id


def _descending(scores: np.ndarray, first: int) -> Iterator[int]:
    """Goes through the places of scores `[n]`, best first; for the first ones few are sorted."""
    left = np.arange(len(scores))
    if 0 < first < len(scores):
        best = np.sort(np.argpartition(-scores, first)[:first])
        yield from best[np.argsort(-scores[best], kind="stable")]
        left = np.delete(left, best)
    yield from left[np.argsort(-scores[left], kind="stable")]
