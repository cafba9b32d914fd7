"""The reading half of `Memory`: search, lists, history, answers, and what was so in the past."""

import dataclasses
import functools
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memr1_jax.inference.agents import Agents
from memr1_jax.service import clock
from memr1_jax.service.adding import Answering
from memr1_jax.service.errors import Refused
from memr1_jax.service.filters import Test, matcher, scope_of
from memr1_jax.service.messages import clean
from memr1_jax.service.ranked import searcher
from memr1_jax.service.records import State
from memr1_jax.service.replies import history_reply, memory_reply
from memr1_jax.service.request_queue import Job, Worker
from memr1_jax.service.scope import IDS, Scope
from memr1_jax.service.search import Item, Shelves, vectors_of
from memr1_jax.service.store import Store
from memr1_jax.service.undo import bare

DEFAULT_DB = "~/.memr1/memory.db"
_MOST = 10_000  # results of a search


class Reading:
    """The methods that read memories; `Memory` adds those that write."""

    def __init__(
        self,
        agents: Agents | str | os.PathLike | Sequence[str | os.PathLike] = "nano",
        *,
        db: str | Path = DEFAULT_DB,
        fit_words: bool = False,
        **options: Any,
    ):
        """Opens the database.

        Args:
          agents: agents, or what `inference.loading.load` takes: a run folder, a model, "nano",
            or two models, the manager's and the Answer Agent's.
          db: a path of an SQLite file, or the URL of a PostgreSQL database.
          fit_words: whether a search weighs the words of a query by how few of the memories of a
            scope have them, as they are then, and not by the dialogues of training alone. What the
            manager and the Answer Agent see of a bank stays as it was in training.
          **options: those of `load`.

        Raises:
          UserError: the database cannot be opened.
        """
        self.store = Store(db)
        self._named, self._options, self._fit_words = agents, options, fit_words
        self._lock = threading.Lock()

    def __enter__(self) -> "Reading":
        """Returns itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Finishes what is under way and closes the database."""
        if "_loaded" in self.__dict__:
            self._parts[1].close()
        self.store.close()

    def search(
        self,
        query: str,
        *,
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        rerank: bool = False,
        explain: bool = False,
        reference_date: Any = None,
        show_expired: bool = False,
        as_of: Any = None,
        as_of_written: Any = None,
        limit: int | None = None,
        **ids: Any,
    ) -> dict[str, Any]:
        """Finds the memories that are nearest to a query, best first.

        Args:
          query: what to look for.
          top_k: how many at most, 20 by default; `limit` is the former name.
          filters: whose memories, and conditions on them; see `filters`. `user_id=`, `agent_id=`
            and `run_id=` may be given as well.
          threshold: the least score; by default all that have anything in common with the query.
          rerank: accepted; there is no reranker.
          explain: adds to each result how its score came about.
          reference_date: the day by which memories expire; today by default.
          show_expired: finds memories that have expired too.
          as_of: a moment of what is told: what was so by then.
          as_of_written: a moment of writing: what was known by then.
          limit: see `top_k`.
          **ids: see `filters`.

        Raises:
          Refused: no id was given, or an argument is not of this form.
        """
        if not isinstance(query, str) or not query.strip():
            raise Refused("query must be a text that is not blank.")
        scope, test = self._asked(filters, ids, show_expired, reference_date)
        least, most = _number(threshold, "threshold"), _count(top_k, limit)
        found = self._nearest(scope, test, query, as_of, as_of_written, most)
        results = []
        for (memory, state, _), score in found:
            if len(results) == most or score < least or score <= 0 and not least:
                break
            more = {"explain": {"score": score, "embedder": "inner product"}} if explain else {}
            results.append(memory_reply(memory, state, score=score, **more))
        return {"results": results}

    def get_all(
        self,
        *,
        filters: Mapping[str, Any] | None = None,
        top_k: int | None = None,
        show_expired: bool = False,
        as_of: Any = None,
        as_of_written: Any = None,
        limit: int | None = None,
        **ids: Any,
    ) -> dict[str, Any]:
        """Lists memories, oldest first; the arguments are those of `search`.

        Raises:
          Refused: no id was given, or an argument is not of this form.
        """
        scope, test = self._asked(filters, ids, show_expired, None)
        held = [item for item in self._at(scope, as_of, as_of_written).items() if test(item[1])]
        return {"results": [memory_reply(*item) for item in held[: _count(top_k, limit)]]}

    def get(self, memory_id: str) -> dict[str, Any] | None:
        """Returns one memory, None where there is none of this id."""
        state = self.store.memory(str(memory_id))
        return None if state is None else memory_reply(memory_id, state)

    def history(self, memory_id: str) -> list[dict[str, Any]]:
        """Lists the events of a memory, those after its deletion included.

        Raises:
          Unknown: there is and was no such memory.
        """
        scope = self.store.scope_of(memory=memory_id)
        return [history_reply(event) for event in self.store.events(scope, memories=[memory_id])]

    def answer(
        self,
        query: str,
        *,
        filters: Mapping[str, Any] | None = None,
        top_k: int | None = None,
        as_of: Any = None,
        as_of_written: Any = None,
        explain: bool = False,
        show_expired: bool = False,
        **ids: Any,
    ) -> dict[str, Any]:
        """Answers a question from the memories that are nearest to it.

        Args:
          query: the question.
          filters: see `search`, as are `as_of`, `as_of_written` and `show_expired`.
          top_k: memories of a speaker that the Answer Agent is shown at most; by default as many
            as it was trained with.
          as_of: see `filters`.
          as_of_written: see `filters`.
          explain: adds what the Answer Agent was asked and what it wrote.
          show_expired: see `filters`.
          **ids: see `search`.

        Returns:
          `answer`, the `memories` that it picked, and as `results` those that it was shown. Of a
          scope with more than two speakers the two with the nearest memories are shown.

        Raises:
          Refused: no id was given, or an argument is not of this form.
        """
        if not isinstance(query, str) or not query.strip():
            raise Refused("query must be a text that is not blank.")
        scope, test = self._asked(filters, ids, show_expired, None)
        agents, worker, _ = self._parts
        most = min(_count(top_k, None, agents.options.memories), agents.options.memories)
        near: list[Item] = []
        counts: dict[str, int] = {}
        for item, _ in self._nearest(scope, test, query, as_of, as_of_written, each=most):
            speaker = item[1]["speaker"]
            counts[speaker] = counts.get(speaker, 0) + 1
            if counts[speaker] <= most:
                near.append(item)
        answering = Answering(agents, clean(query), near)
        job = Job("answer", None, answering.prepare, answering.finish)
        answered, picked, shown = worker.do(job)
        states = {memory: state for memory, state, _ in near}
        reply = {
            "answer": answered.answer,
            "memories": [memory_reply(memory, states[memory]) for memory in picked],
            "results": [memory_reply(memory, states[memory]) for memory in shown],
        }
        if explain:
            digests = agents.digests
            reply["explain"] = {"prompt": answered.prompt, "output": answered.response}
            reply["explain"]["agents"] = digests
        return reply

    def diff(
        self,
        before: Any,
        after: Any = None,
        *,
        by: str = "written",
        filters: Mapping[str, Any] | None = None,
        **ids: Any,
    ) -> dict[str, Any]:
        """Compares the memories of two moments; the second is now by default.

        `by` says which time the moments are in: "written", or "event", of what is told. Returns
        `added`, `deleted`, and `updated` with `previous_memory`.
        """
        if by not in ("written", "event"):
            raise Refused(f"by={by!r} is neither written nor event.")
        scope, test = self._asked(filters, ids, True, None)
        name = "as_of_written" if by == "written" else "as_of"
        old, new = (
            {k: s for k, s in self._at(scope, **{name: moment}).items() if test(s)}
            for moment in (before, after)
        )
        return {
            "added": [memory_reply(k, s) for k, s in new.items() if k not in old],
            "deleted": [memory_reply(k, s) for k, s in old.items() if k not in new],
            "updated": [
                memory_reply(k, s, previous_memory=old[k]["text"])
                for k, s in new.items()
                if k in old and bare(old[k]) != bare(s)
            ],
        }

    def stats(self) -> dict[str, Any]:
        """Counts memories, events and messages, says what searches, and lists all scopes."""
        scopes = [{**scope.given, "memories": count} for scope, count in self.store.scopes()]
        return {**self.store.counts(), "search": self.searched_by, "scopes": scopes}

    def chat(self, query: str) -> None:
        """Is not offered, as in mem0; see `answer`."""
        raise NotImplementedError("Use `answer`.")

    # Parts

    @property
    def agents(self) -> Agents:
        """The agents, loaded on first use."""
        return self._parts[0]

    @property
    def searched_by(self) -> str:
        """Names what compares a query with the memories: pgvector, or blocks in this process."""
        loaded = self.__dict__.get("_loaded")
        return (loaded[2] if loaded else searcher(self.store, self._fit_words)).name

    @functools.cached_property
    def _loaded(self) -> tuple[Agents, Worker, Shelves]:
        agents = self._named
        if isinstance(agents, (str, os.PathLike, list, tuple)):
            from memr1_jax.inference.loading import load

            names = [agents] if isinstance(agents, (str, os.PathLike)) else agents
            agents = load(*names, **self._options)
        words = 0
        if self._fit_words and agents.options.embedder in ("tfidf", "both"):
            words = agents.options.features
        search = searcher(self.store, bool(words), agents)
        return agents, Worker(agents), search(self.store, agents, words)

    @property
    def _parts(self) -> tuple[Agents, Worker, Shelves]:
        with self._lock:
            return self._loaded

    def _asked(self, filters, ids, show_expired: bool, reference: Any) -> tuple[Scope, Test]:
        if strange := set(ids) - set(IDS):
            raise Refused(f"There is no argument {', '.join(sorted(strange))}.")
        scope, test = scope_of(filters, **ids), matcher(filters)
        if show_expired:
            return scope, test
        today = clock.day(reference, "reference_date") or clock.now()[:10]

        def fresh(state: State) -> bool:
            return (state["expires"] or today) >= today and test(state)

        return scope, dataclasses.replace(test, passes=fresh)

    def _at(self, scope: Scope, as_of: Any = None, as_of_written: Any = None) -> dict[str, State]:
        if as_of is None and as_of_written is None:
            return self.store.memories(scope)
        return self.store.as_of(
            scope,
            happened_by=as_of if as_of is None else clock.until(as_of, "as_of"),
            written_by=None
            if as_of_written is None
            else clock.until(as_of_written, "as_of_written"),
        )

    def _nearest(
        self, scope, test: Test, query: str, as_of, as_of_written, most: int = _MOST, each=None
    ):
        """Returns `((id, state, vector), score)` of the memories that pass, best first."""
        agents, _, shelves = self._parts
        wanted = agents.query(clean(query))
        if as_of is not None or as_of_written is not None:
            states = {k: s for k, s in self._at(scope, as_of, as_of_written).items() if test(s)}
            vectors = vectors_of(agents, list(states.values()))
            wanted = shelves.fitted_to(wanted, vectors)
            items = zip(states, states.values(), vectors, strict=True)
            scored = [
                (item, float(score)) for item, score in zip(items, vectors @ wanted, strict=True)
            ]
            return sorted(scored, key=lambda item: -item[1])
        return shelves.best(scope, wanted, test, most, each)


def _count(top_k: Any, limit: Any, default: int = 20) -> int:
    count = limit if top_k is None else top_k
    if count is None:
        return default
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _MOST:
        raise Refused(f"top_k={count!r} must be a whole number from 0 to {_MOST}.")
    return count


def _number(value: Any, name: str) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise Refused(f"{name}={value!r} must be a number.")
    return float(value)
