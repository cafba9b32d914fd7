"""Replies in mem0's shapes."""

import hashlib
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from memr1_jax.service.records import Entry, Kind, State
from memr1_jax.service.scope import IDS

_WHERE_SET = (*IDS, "actor_id", "role")


def memory_reply(memory: str, state: State, **more: Any) -> dict[str, Any]:
    """Spells a memory as mem0's `get` does, with the time of what it tells; `more` is added."""
    reply = {
        "id": memory,
        "memory": state["text"],
        "hash": hashlib.md5(state["text"].encode(), usedforsecurity=False).hexdigest(),
        "metadata": state["metadata"] or None,
        "created_at": state["created_at"],
        "updated_at": state["updated_at"],
        "event_time": state["event_time"],
    }
    reply |= {name: state[name] for name in _WHERE_SET if state.get(name)}
    if state["expires"]:
        reply["expiration_date"] = state["expires"]
    return reply | more


def entry_reply(entry: Entry, *, explain: bool = False) -> dict[str, Any]:
    """Spells what an `add` did: ADD, UPDATE, DELETE, NONE, or FAILED where nothing was readable."""
    facts = " ".join((entry.details or {}).get("facts", ()))
    text = entry.after or entry.before or {"text": facts}
    reply = {"id": entry.memory, "memory": text["text"], "event": entry.kind.value}
    if entry.kind == Kind.UPDATE:
        reply["previous_memory"] = entry.before["text"]
    if explain:
        shown = ("speaker", "facts", "prompt", "output", "agents")
        reply["explain"] = {name: (entry.details or {}).get(name) for name in shown}
    return reply


def history_reply(event: sa.Row) -> dict[str, Any]:
    """Spells an event as a line of mem0's `history`; `undoes` names the event it takes back."""
    before, after = event.before or {}, event.after or {}
    state: Mapping[str, Any] = after or before
    reply = {
        "id": str(event.id),
        "memory_id": event.memory,
        "old_memory": before.get("text"),
        "new_memory": after.get("text"),
        "event": event.kind,
        "created_at": state["created_at"],
        "updated_at": event.created_at,
        "event_time": event.event_time,
        "is_deleted": event.after is None,
        "actor_id": event.actor or None,
        "role": state.get("role"),
        "call": event.call,
    }
    return reply | ({"undoes": str(event.reverts)} if event.reverts else {})
