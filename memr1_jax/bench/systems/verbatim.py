"""Systems that store what they read unchanged, and choose from it when they are asked."""

import collections
import dataclasses
import time
from collections.abc import Sequence

from memr1_jax.bench.systems.answer_stage import AnswerStage, ask_for_answer
from memr1_jax.bench.systems.protocol import Answer, Memory, Steps
from memr1_jax.bench.systems.ranking import Choose, Search
from memr1_jax.bench.systems.units import Arrange, Read
from memr1_jax.data.types import Question, Session


@dataclasses.dataclass(frozen=True)
class ReadingSystem:
    """Describes what is read of a session, made of all that was read, and shown of it.

    `chronological`: memories are shown in order of time, not of relevance.
    """

    name: str
    read: Read
    search: Search
    stage: AnswerStage
    arrange: Arrange = list
    chronological: bool = False

    def start(self, speakers: tuple[str, str]) -> "ReadingStore":
        """Makes an empty store."""
        return ReadingStore(self, speakers)


class ReadingStore:
    """All that was read of one conversation."""

    def __init__(self, system: ReadingSystem, speakers: tuple[str, str]):
        """Begins with nothing read."""
        self.counts: collections.Counter = collections.Counter()
        self._system, self._speakers = system, speakers
        self._read: list[Memory] = []
        self._prepared: tuple[list[Memory], Choose] | None = None

    def ingest(self, session: Session) -> Steps[None]:
        """Reads a session; no language model is asked."""
        self._read += self._system.read(session)
        self._prepared = None
        return
        yield  # makes it a generator

    def answer(self, question: Question) -> Steps[Answer]:
        """Answers from the chosen memories."""
        _, choose = self._prepare()
        begin = time.perf_counter()
        chosen = choose(question)
        seconds = time.perf_counter() - begin
        return (
            yield from ask_for_answer(
                self._system.stage,
                self._speakers,
                question,
                chosen,
                chronological=self._system.chronological,
                search_seconds=seconds,
            )
        )

    def memories(self) -> Sequence[Memory]:
        """Returns all memories as they are searched."""
        return self._prepare()[0]

    def _prepare(self) -> tuple[list[Memory], Choose]:
        if self._prepared is None:
            memories = self._system.arrange(self._read)
            self._prepared = memories, self._system.search(memories)
        return self._prepared
