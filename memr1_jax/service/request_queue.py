"""One thread that owns the agents and works through the requests of many callers together."""

import collections
import dataclasses
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any

from memr1_jax.inference.agents import Agents
from memr1_jax.service.records import Outdated

_MOST_JOBS = 32  # of one round


@dataclasses.dataclass(frozen=True)
class Job:
    """A call: what it asks of the agents once its turn has come, and what is done with the result.

    Its `kind` is "remember" or "answer", its requests are those of `Agents.remember_all` or
    `answer_all`. Jobs of the same `key` are done one after another, in their order; None stands for
    no order. `finish` may raise `Outdated`, after which the job is prepared again.
    """

    kind: str
    key: Hashable | None
    prepare: Callable[[], Sequence[Any]]
    finish: Callable[[Sequence[Any]], Any]
    future: Future = dataclasses.field(default_factory=Future)


class Worker:
    """A queue of jobs and the thread that does them, those of many callers in one batch."""

    def __init__(self, agents: Agents):
        """Starts the thread."""
        self._agents = agents
        self._jobs: collections.deque[Job] = collections.deque()
        self._ready = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="memr1 agents", daemon=True)
        self._thread.start()

    def do(self, job: Job) -> Any:
        """Queues a job, waits for it and returns what its `finish` returns.

        Raises:
          RuntimeError: the worker was closed.
        """
        with self._ready:
            if self._closed:
                raise RuntimeError("This memory was closed.")
            self._jobs.append(job)
            self._ready.notify()
        return job.future.result()

    def close(self) -> None:
        """Finishes what is queued and ends the thread."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                batch = self._next()
            again = self._round(batch)
            with self._ready:
                self._jobs.extendleft(reversed(again))

    def _next(self) -> list[Job]:
        """Takes the oldest job and those that can be done with it: its kind, one of each key."""
        batch, left, keys = [], collections.deque(), set()
        for job in self._jobs:
            fits = job.kind == self._jobs[0].kind and len(batch) < _MOST_JOBS
            if fits and (job.key is None or job.key not in keys):
                batch.append(job)
            else:
                left.append(job)
            keys.add(job.key)
        self._jobs = left
        return batch

    def _round(self, batch: Sequence[Job]) -> list[Job]:
        """Does some jobs; returns those that somebody else's write has made out of date."""
        prepared = []
        for job in batch:
            try:
                prepared.append((job, job.prepare()))
            except BaseException as error:
                job.future.set_exception(error)
        try:
            together = self._run(batch[0].kind, [r for _, requests in prepared for r in requests])
        except Exception:  # one of them is at fault, which the others shall not bear
            together = None
        again = []
        for job, requests in prepared:
            try:
                if together is None:
                    results = self._run(job.kind, requests)
                else:
                    results, together = together[: len(requests)], together[len(requests) :]
                job.future.set_result(job.finish(results))
            except Outdated:
                again.append(job)
            except BaseException as error:
                job.future.set_exception(error)
        return again

    def _run(self, kind: str, requests: Sequence[Any]) -> Sequence[Any]:
        if not requests:
            return []
        if kind == "remember":
            return self._agents.remember_all(requests)
        return self._agents.answer_all(requests)
