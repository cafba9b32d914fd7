"""The jobs of `Memory.add` and `Memory.answer`: from a scope's memories to the agents and back."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memr1_jax.inference.agents import Agents
from memr1_jax.inference.decisions import Answered, Remembered
from memr1_jax.inference.memories import Memories
from memr1_jax.service import clock
from memr1_jax.service.banks import Writing, memories_of, places
from memr1_jax.service.queries import oldest_first
from memr1_jax.service.records import Entry, Message, State
from memr1_jax.service.scope import Scope
from memr1_jax.service.search import Item, Shelves, vectors_of
from memr1_jax.service.store import Store
from memr1_jax.service.undo import bare


class Adding:
    """One call of `add`: the manager reads the messages, its changes become events.

    `details` go into every event; with `stored`, ids of messages, these are there already.
    """

    def __init__(
        self,
        store: Store,
        shelves: Shelves,
        agents: Agents,
        scope: Scope,
        messages: Sequence[Message],
        *,
        call: str,
        more: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
        stored: Sequence[int] = (),
    ):
        """Reads nothing yet."""
        self._store, self._shelves, self._agents = store, shelves, agents
        self._scope, self._messages, self._call = scope, messages, call
        self._more, self._details, self._stored = more or {}, details or {}, stored
        self._version, self._writings = 0, []

    def prepare(self) -> list[tuple[list[tuple[str, str, str]], Memories]]:
        """Returns a request for each speaker of the messages, with the bank as it is now."""
        shelf = self._shelves.exactly(self._scope)
        requests, self._writings = [], []
        heard: dict[str, list[int]] = {}
        for place, message in enumerate(self._messages):
            if message.role != "system" and message.content.strip():
                heard.setdefault(message.speaker, []).append(place)
        capacity = self._agents.options.bank_capacity
        with shelf.lock:
            self._version = shelf.version
            held = oldest_first(shelf.states)
            for speaker, told in heard.items():
                own = {key: state for key, state in held.items() if state["speaker"] == speaker}
                slots = places(own, capacity)
                memories = memories_of(
                    self._agents,
                    {speaker: {slot: own[key] for slot, key in slots.items()}},
                    {speaker: {slot: shelf.vector(key) for slot, key in slots.items()}},
                )
                said = [self._messages[place] for place in told]
                turns = [(speaker, m.content, clock.said(m.event_time)) for m in said]
                requests.append((turns, memories))
                states = {key: bare(state) for key, state in own.items()}
                self._writings.append(
                    Writing(
                        *(speaker, slots, states, self._messages, told),
                        *(self._more, self._agents.digests),
                    )
                )
        return requests

    def finish(self, results: Sequence[Remembered]) -> list[Entry]:
        """Writes messages and events as one transaction and returns the events.

        Raises:
          Outdated: somebody else wrote to the scope meanwhile.
        """
        found: list[tuple[int, Entry]] = []
        moment = clock.now()
        for writing, remembered in zip(self._writings, results, strict=True):
            writing.moment = moment
            for decision in remembered.decisions:
                place = writing.heard[decision.turn]
                found += [(place, entry) for entry in writing.entries(decision)]
            _keep_tokens(writing, remembered.memories, found, self._agents)
        found.sort(key=lambda item: item[0])  # stable: of one message in their order
        entries = [
            dataclasses.replace(entry, details={**entry.details, **self._details})
            for _, entry in found
        ]
        entries = with_vectors(self._agents, entries)
        self._store.write(
            self._scope,
            entries,
            call=self._call,
            messages=() if self._stored else self._messages,
            stored=self._stored,
            version=self._version,
            embedder=self._agents.digests["embedder"],
            moment=moment,
        )
        return entries


def _keep_tokens(writing: Writing, memories: Memories, found, agents: Agents) -> None:
    """Notes what the manager wrote, token for token, in the last state of each memory."""
    bank = memories.banks[memories.speakers.index(writing.speaker)]
    slots = {memory: slot for slot, memory in writing.slots.items()}
    seen = set()
    for place in reversed(range(len(found))):
        number, entry = found[place]
        if entry.memory in seen or entry.after is None or entry.memory not in slots:
            continue
        seen.add(entry.memory)
        slot = slots[entry.memory]
        tokens = np.asarray(bank.tokens[slot, : bank.length[slot]]).tolist()
        after = entry.after | {"tokens": tokens, "tokenizer": agents.digests["tokenizer"]}
        found[place] = number, dataclasses.replace(entry, after=after)


def with_vectors(agents: Agents, entries: Sequence[Entry]) -> list[Entry]:
    """Embeds what the entries write; the last state of a memory counts."""
    last = {entry.memory: place for place, entry in enumerate(entries) if entry.after is not None}
    written = list(last.values())
    vectors = vectors_of(agents, [entries[place].after for place in written]) if written else ()
    made = dict(zip(written, vectors, strict=True))
    return [
        dataclasses.replace(entry, vector=made[place].tobytes()) if place in made else entry
        for place, entry in enumerate(entries)
    ]


class Answering:
    """One call of `answer`: the memories that are nearest to the question, and what is said."""

    def __init__(self, agents: Agents, question: str, items: Sequence[Item]):
        """Sorts the memories by speaker; of more than two, those with the nearest memories stay."""
        self._agents, self._question = agents, question
        near = list(dict.fromkeys(state["speaker"] for _, state, _ in items))[:2]
        self._items = [item for item in items if item[1]["speaker"] in near]
        self._slots: dict[str, dict[int, Item]] = {}

    def prepare(self) -> list[tuple[str, Memories]]:
        """Returns the request: question and banks."""
        items = {item[0]: item for item in self._items}
        speakers: dict[str, dict[str, State]] = {}
        for memory, state in oldest_first({key: item[1] for key, item in items.items()}).items():
            speakers.setdefault(state["speaker"], {})[memory] = state
        self._slots = {
            speaker: dict(enumerate(items[memory] for memory in _in_order(states)))
            for speaker, states in speakers.items()
        }
        states, vectors = (
            {
                speaker: {slot: item[part] for slot, item in slots.items()}
                for speaker, slots in self._slots.items()
            }
            for part in (1, 2)
        )
        return [(self._question, memories_of(self._agents, states, vectors))]

    def finish(self, results: Sequence[Answered]) -> tuple[Answered, list[str], list[str]]:
        """Returns the answer, the ids of the memories it picked, and of those it was shown."""
        (answered,) = results
        picked, shown = (
            [self._slots[memory.speaker][memory.slot][0] for memory in memories]
            for memories in (answered.picked, answered.shown)
        )
        return answered, picked, shown


def _in_order(states: Mapping[str, State]) -> list[str]:
    """Orders the memories of a speaker by slot, which decides between equal scores."""
    slots = places(states, max((s["slot"] or 0 for s in states.values()), default=0) + 1)
    return [slots[slot] for slot in sorted(slots)]
