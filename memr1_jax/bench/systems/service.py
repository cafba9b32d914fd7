"""The memory service as a row: `Memory.add` reads the dialogue, `Memory.answer` answers.

The agents run the service's own programs, so that the table measures what an application gets.
Turns without a readable time have the time of the run.
"""

import collections
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memr1_jax.bench.systems.answer_stage import question_text
from memr1_jax.bench.systems.extraction import owners, spoken
from memr1_jax.bench.systems.protocol import Answer, Memory, Steps
from memr1_jax.data.times import read_times
from memr1_jax.data.types import Question, Session
from memr1_jax.inference.agents import Agents
from memr1_jax.service import clock
from memr1_jax.service.memory import Memory as Service
from memr1_jax.service.records import State
from memr1_jax.service.scope import Scope
from memr1_jax.text.answer_span import extract_answer


class ServiceSystem:
    """Puts a memory on a database of its own, which ends with it; a conversation is a user."""

    def __init__(self, name: str, agents: Agents, user_turns: bool = False):
        """Opens the database; with `user_turns` the assistant's turns are not remembered."""
        self.name, self.user_turns = name, user_turns
        self._folder = tempfile.TemporaryDirectory()
        self.service = Service(agents, db=Path(self._folder.name) / "memory.db")
        self._users = itertools.count()

    def start(self, speakers: tuple[str, str]) -> "ServiceStore":
        """Makes the store of another user."""
        return ServiceStore(self, speakers, f"user-{next(self._users)}")


class ServiceStore:
    """Holds what the service remembers of one conversation."""

    def __init__(self, system: ServiceSystem, speakers: tuple[str, str], user: str):
        """Remembers nothing yet."""
        self.counts: collections.Counter = collections.Counter()
        self._service, self._user = system.service, user
        self._heard = owners(speakers) if system.user_turns else speakers
        self._turns: dict[int, str] = {}  # by the ids of messages

    def ingest(self, session: Session) -> Steps[None]:
        """Adds the turns of a session in one call."""
        turns = spoken(session, self._heard)
        if turns:
            said = [
                {"role": "user", "name": turn.speaker, "content": turn.content, **_time(when)}
                for turn, when in zip(
                    turns, read_times([session.time_of(turn) for turn in turns]), strict=True
                )
            ]
            reply = self._service.add(said, user_id=self._user)
            self.counts.update(result["event"].lower() for result in reply["results"])
            rows = self._service.store.messages(Scope.of(self._user), call=reply["call"])
            self._turns |= {row.id: turn.dia_id for row, turn in zip(rows, turns, strict=True)}
        return
        yield  # makes it a generator

    def answer(self, question: Question) -> Steps[Answer]:
        """Asks the service."""
        begin = time.perf_counter()
        reply = self._service.answer(question_text(question), user_id=self._user, explain=True)
        response = reply["explain"]["output"]
        held = self._states()
        return Answer(
            response=response,
            answer=reply["answer"],
            rule=extract_answer(response)[1].name.lower(),
            memories=tuple(self._memory(held[found["id"]]) for found in reply["results"]),
            search_seconds=time.perf_counter() - begin,
        )
        yield  # makes it a generator

    def memories(self) -> Sequence[Memory]:
        """Returns all that is remembered."""
        return [self._memory(state) for state in self._states().values()]

    def _states(self) -> dict[str, State]:
        return self._service.store.memories(Scope.of(self._user))

    def _memory(self, state: State) -> Memory:
        sources = tuple(dict.fromkeys(self._turns[source] for source in state["sources"]))
        return Memory(state["text"], clock.said(state["event_time"]), state["speaker"], sources)


def _time(moment: Any) -> dict[str, str]:
    return {} if moment is None else {"timestamp": moment.isoformat()}
