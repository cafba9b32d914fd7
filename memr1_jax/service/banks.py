"""From the database to the manager's banks, and from its changes back to events.

Axis letters: M slots of a bank, E retrieval width.
"""

import dataclasses
import itertools
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from memr1_jax.inference.agents import Agents
from memr1_jax.inference.batching import bucket, grown
from memr1_jax.inference.decisions import Decision
from memr1_jax.inference.memories import Memories
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.service import clock
from memr1_jax.service.records import Entry, Here, Kind, Message, State, new_state
from memr1_jax.service.search import token_rows
from memr1_jax.text.events import Event


def places(states: Mapping[str, State], capacity: int) -> dict[int, str]:
    """Gives each memory of one speaker a slot: its own, or the lowest free one.

    A memory loses its slot where an older one has the same, as after an undo.
    """
    found: dict[int, str] = {}
    homeless = []
    most = capacity + 4 * len(states)  # what another database holds may name any number
    for memory, state in states.items():
        slot = state["slot"]
        if isinstance(slot, int) and 0 <= slot < most and slot not in found:
            found[slot] = memory
        else:
            homeless.append(memory)
    free = (slot for slot in itertools.count() if slot not in found)
    for memory, slot in zip(homeless, [next(free) for _ in homeless], strict=True):
        found[slot] = memory
    return found


def bank_of(
    agents: Agents,
    empty: MemoryBank,
    states: Mapping[int, State],
    vectors: Mapping[int, np.ndarray],
    times: Sequence[str],
) -> MemoryBank:
    """Builds the bank `[M, ...]` that holds memories by slot; `times` are their dates as told."""
    capacity = bucket(max(states, default=0) + 1, len(empty.alive))
    bank = jax.tree.map(np.array, grown(empty, capacity))
    index = {time: place for place, time in enumerate(times)}
    for slot, row in zip(states, token_rows(agents, list(states.values())), strict=True):
        row = row[: bank.tokens.shape[1]]
        state = states[slot]
        bank.tokens[slot, : len(row)] = row
        bank.length[slot] = len(row)
        bank.key[slot] = vectors[slot]
        bank.created[slot] = index[clock.said(state["first_event_time"])]
        bank.updated[slot] = index[clock.said(state["event_time"])]
        bank.alive[slot] = True
    return bank


def memories_of(
    agents: Agents,
    speakers: Mapping[str, Mapping[int, State]],
    vectors: Mapping[str, Mapping[int, np.ndarray]],
) -> Memories:
    """Builds what agents read: the banks of one or two speakers, by name and slot."""
    empty = agents.empty()
    moments = sorted(
        state[name]
        for held in speakers.values()
        for state in held.values()
        for name in ("first_event_time", "event_time")
    )
    times = tuple(dict.fromkeys(map(clock.said, moments)))
    names = (*speakers, "", "")[:2]
    banks = [
        bank_of(agents, bank, speakers.get(name, {}), vectors.get(name, {}), times)
        for name, bank in zip(names, empty.banks, strict=True)
    ]
    capacity = max(len(bank.alive) for bank in banks)
    first, second = (grown(bank, capacity) for bank in banks)
    return Memories(names, (first, second), times, 0, agents.tokenizer)


@dataclasses.dataclass
class Writing:
    """One speaker's bank as it is being changed; makes events of the manager's decisions."""

    speaker: str
    slots: dict[int, str]  # memory ids
    states: dict[str, State]
    messages: Sequence[Message]  # of the whole call
    heard: Sequence[int]  # places of those that this speaker said
    more: Mapping[str, Any]  # fields of what is written: metadata, expiry
    digests: Mapping[str, str]
    moment: str = ""  # of writing

    def entries(self, decision: Decision) -> list[Entry]:
        """Makes the events of one decision; there is one even where nothing was changed."""
        place = self.heard[decision.turn]
        details = {
            "message": Here(place),
            "speaker": self.speaker,
            "facts": list(decision.facts),
            "prompt": decision.prompt,
            "output": decision.output,
            "agents": dict(self.digests),
        }
        time = self.messages[place].event_time
        if not decision.changes:
            kind = Kind.NONE if decision.readable else Kind.FAILED
            return [Entry(kind, None, None, None, time, self.speaker, details)]
        return [self._entry(change, place, details) for change in decision.changes]

    def _entry(self, change, place: int, details: dict) -> Entry:
        message = self.messages[place]
        time, source = message.event_time, Here(place)
        if change.event == Event.ADD:
            memory, before = str(uuid.uuid4()), None
            more = {"role": message.role, "slot": change.slot, "sources": [source]} | self.more
            times = {"event_time": time, "moment": self.moment}
            after = new_state(change.after, self.speaker, **times, **more)
        else:
            memory = self.slots.pop(change.slot)
            before, after = self.states.pop(memory), None
        if change.event == Event.UPDATE:
            more = dict(self.more)
            more["metadata"] = before["metadata"] | more.get("metadata", {})
            after = (
                before
                | more
                | {
                    "text": change.after,
                    "slot": change.slot,
                    "tokens": None,
                    "tokenizer": "",
                    "event_time": time,
                    "updated_at": self.moment,
                    "sources": [*before["sources"], source],
                }
            )
        if after is not None:
            self.slots[change.slot], self.states[memory] = memory, after
        kind = Kind[Event(change.event).name]
        return Entry(kind, memory, before, after, time, self.speaker, details)
