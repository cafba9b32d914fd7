"""`Memory`: the trained agents behind mem0's interface, on one database.

Names, arguments and replies are mem0's, of versions 1 and 2. Added are `answer`, `undo`, `diff`,
`retry`, `as_of=` on reads, `explain=True`, and the events UPDATE, DELETE and NONE of `add`.
"""

import functools
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from memr1_jax.service import clock
from memr1_jax.service.adding import Adding
from memr1_jax.service.banks import places
from memr1_jax.service.errors import Refused, Unknown
from memr1_jax.service.messages import clean, read_messages, read_metadata
from memr1_jax.service.queries import scope_of
from memr1_jax.service.reading import Reading
from memr1_jax.service.records import Entry, Here, Kind, Message, State, new_state, until_current
from memr1_jax.service.replies import entry_reply
from memr1_jax.service.request_queue import Job
from memr1_jax.service.scope import Scope
from memr1_jax.service.undo import bare, undo

_UNSET: Any = object()


class Memory(Reading):
    """Memories of users, agents and runs; one instance serves all threads of a process.

    Agents are loaded when they are first needed: by `add`, `search` and `answer`.
    """

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Memory":
        """Makes a memory from a dictionary of the arguments, `agents` and `db` among them."""
        return cls(**config)

    def add(
        self,
        messages: Any,
        *,
        user_id: Any = None,
        agent_id: Any = None,
        run_id: Any = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        expiration_date: Any = None,
        infer: bool = True,
        memory_type: Any = None,
        prompt: Any = None,
        explain: bool = False,
    ) -> dict[str, Any]:
        """Remembers messages: the manager adds, updates and deletes memories, or leaves them.

        Args:
          messages: a text, a message or a list of messages; see `read_messages`.
          user_id: with `agent_id` and `run_id` whose memory it is; at least one of them.
          agent_id: see `user_id`.
          run_id: see `user_id`.
          metadata: a JSON object, kept with each memory that is written.
          timestamp: when it was said: a text, a datetime or seconds since 1970; now by default.
          expiration_date: the last day (YYYY-MM-DD) on which these memories are found.
          infer: without it each message is kept as a memory as it stands.
          memory_type: not supported.
          prompt: not supported: the agents' prompts are those that they were trained with.
          explain: adds to each result what the manager was asked and what it wrote.

        Returns:
          `results`, each with `id`, `memory` and `event`, an UPDATE with `previous_memory`; and
          `call`, by which `undo` takes all of it back. Where an output could not be read the event
          is FAILED, and `retry` works through it again. The messages are kept in any case.

        Raises:
          Refused: an argument is not of this form.
        """
        scope = Scope.of(user_id, agent_id, run_id)
        if prompt is not None or memory_type is not None:
            raise Refused(
                "prompt and memory_type are not supported: these agents work with the prompts that"
                " they were trained with. Leave them out."
            )
        said = read_messages(messages, timestamp)
        more: dict[str, Any] = {"metadata": read_metadata(metadata)}
        if day := clock.day(expiration_date, "expiration_date"):
            more["expires"] = day
        call = str(uuid.uuid4())
        if infer:
            entries = self._infer(scope, said, call=call, more=more)
            results = [entry_reply(entry, explain=explain) for entry in entries]
        else:
            entries = self._keep(scope, said, call, more)
            results = [
                entry_reply(entry)
                | {name: entry.after[name] for name in ("actor_id", "role") if entry.after[name]}
                for entry in entries
            ]
        return {"results": results, "call": call}

    def _infer(self, scope: Scope, said: Sequence[Message], **more: Any) -> list[Entry]:
        agents, worker, shelves = self._parts
        adding = Adding(self.store, shelves, agents, scope, said, **more)
        return worker.do(Job("remember", scope, adding.prepare, adding.finish))

    def _keep(self, scope: Scope, said: Sequence[Message], call: str, more: Mapping) -> list[Entry]:
        """Writes each message as a memory; system messages are kept as messages alone."""
        kept = [
            (place, message)
            for place, message in enumerate(said)
            if message.role != "system" and message.content.strip()
        ]

        def attempt() -> list[Entry]:
            found, moment = self.store.snapshot(scope, ""), clock.now()
            taken: dict[str, int] = {}
            for speaker in {message.speaker for _, message in kept}:
                own = {k: s for k, s in found.states.items() if s["speaker"] == speaker}
                taken[speaker] = max(places(own, 0), default=-1) + 1
            entries = []
            for place, message in kept:
                slot = taken[message.speaker]
                taken[message.speaker] += 1
                fields = {"slot": slot, "role": message.role, "sources": [Here(place)], **more}
                time = message.event_time
                times = {"event_time": time, "moment": moment}
                state = new_state(message.content, message.speaker, **times, **fields)
                actor, memory = message.speaker, str(uuid.uuid4())
                details = {"message": Here(place)}
                entries.append(Entry(Kind.ADD, memory, None, state, time, actor, details))
            stamp = {"version": found.version, "moment": moment}
            self.store.write(scope, entries, call=call, messages=said, **stamp)
            return entries

        return until_current(attempt)

    def update(
        self,
        memory_id: str,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expiration_date: Any = _UNSET,
        data: str | None = None,
        timestamp: Any = None,
    ) -> dict[str, str]:
        """Changes a memory; `data` is the former name of `text`, metadata is merged.

        Raises:
          Unknown: there is no such memory.
          Refused: nothing was given to change, or not of this form.
        """
        text = data if text is None else text
        if text is not None and (not isinstance(text, str) or not text.strip()):
            raise Refused(f"text={text!r} must be a text that is not blank; `delete` removes.")
        if text is None and metadata is None and expiration_date is _UNSET and timestamp is None:
            raise Refused("Give at least one of text, metadata, timestamp and expiration_date.")
        changes: dict[str, Any] = {}
        if text is not None:
            changes |= {"text": clean(text).strip(), "tokens": None, "tokenizer": ""}
        if expiration_date is not _UNSET:
            changes["expires"] = clock.day(expiration_date, "expiration_date")
        if timestamp is not None:
            changes["event_time"] = clock.read(timestamp, "timestamp")
        merged = read_metadata(metadata)

        def changed(state: State, moment: str) -> State:
            metadata = state["metadata"] | merged
            return state | changes | {"metadata": metadata, "updated_at": moment}

        self._replace(memory_id, Kind.UPDATE, changed, changes.get("event_time"))
        return {"message": "Memory updated successfully!"}

    def delete(self, memory_id: str) -> dict[str, str]:
        """Deletes a memory; its history stays, and `undo` brings it back.

        Raises:
          Unknown: there is no such memory.
        """
        self._replace(memory_id, Kind.DELETE, lambda state, moment: None, None)
        return {"message": "Memory deleted successfully!"}

    def _replace(self, memory: str, kind: Kind, changed, time: str | None) -> None:
        def attempt() -> None:
            scope, state = self.store.scope_of(memory=memory), bare(self.store.memory(memory))
            if state is None:
                raise Unknown(f"The memory {memory!r} was deleted. `undo` brings it back.")
            moment = clock.now()
            entry = Entry(kind, memory, state, changed(state, moment), time or moment)
            self.store.write(scope, [entry], moment=moment)

        until_current(attempt)

    def delete_all(
        self, user_id: Any = None, agent_id: Any = None, run_id: Any = None
    ) -> dict[str, str]:
        """Deletes all memories under the given ids; their history stays.

        Raises:
          Refused: no id was given.
        """
        for scope in self.store.versions(Scope.of(user_id, agent_id, run_id)):
            until_current(functools.partial(self._delete_scope, scope))
        return {"message": "Memories deleted successfully!"}

    def _delete_scope(self, scope: Scope) -> None:
        found, now = self.store.snapshot(scope, ""), clock.now()
        entries = [
            Entry(Kind.DELETE, memory, bare(state), None, now)
            for memory, state in found.states.items()
        ]
        if entries:
            self.store.write(scope, entries, version=found.version)

    def undo(
        self,
        memory_id: str | None = None,
        *,
        event_id: str | int | None = None,
        call: str | None = None,
    ) -> dict[str, Any]:
        """Takes back the last event of a memory, one event, or all that one `add` did.

        Raises:
          Refused: there is nothing to take back, or a later event changed the same memory.
        """
        if sum(value is not None for value in (memory_id, event_id, call)) != 1:
            raise Refused("Say what to undo: one of memory_id, event_id and call.")
        event = 0
        if event_id is not None:
            if not str(event_id).isdecimal() or int(event_id) >= 2**63:
                raise Unknown(f"event_id={event_id!r} is no event: `history` lists their numbers.")
            event = int(event_id)
        named = {"memory": memory_id or "", "call": call or "", "event": event}
        scope = self.store.scope_of(**named)
        events = self.store.events(scope, ids=undo(self.store, scope, **named))
        return {
            "results": [
                {
                    "id": event.memory,
                    "memory": (event.after or {}).get("text"),
                    "event": "UNDO",
                    "previous_memory": (event.before or {}).get("text"),
                }
                for event in events
            ]
        }

    def retry(
        self, *, user_id: Any = None, agent_id: Any = None, run_id: Any = None
    ) -> dict[str, Any]:
        """Works again through what failed, because an output of a model could not be read.

        Returns what `add` returns. Messages that fail again wait for the next time.
        """
        scope = Scope.of(user_id, agent_id, run_id)
        events = self.store.events(scope)
        done = {(event.details or {}).get("retries") for event in events}
        entries: list[Entry] = []
        for event in events:
            if event.kind != Kind.FAILED or event.id in done:
                continue
            exact = scope_of(event)
            (row,) = self.store.messages(exact, ids=[event.details["message"]])
            message = Message(row.role, row.speaker, row.content, row.event_time)
            extra = {"retries": event.id}
            more = {"call": event.call, "details": extra, "stored": [row.id]}
            entries += self._infer(exact, [message], **more)
        return {"results": [entry_reply(entry) for entry in entries]}

    def reset(self) -> None:
        """Deletes everything, history included."""
        self.store.reset()
        if "_loaded" in self.__dict__:
            self._parts[2].clear()
