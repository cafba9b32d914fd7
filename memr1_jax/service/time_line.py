"""The timeline of a scope: each message with the manager's decisions, and all other changes."""

from typing import Any

import sqlalchemy as sa

from memr1_jax.service.scope import Scope
from memr1_jax.service.store import Store
from memr1_jax.service.undo import standing


def told(store: Store, scope: Scope, most: int) -> list[dict[str, Any]]:
    """Lists the latest `most` events under a scope by what brought them, oldest first.

    Each entry has the `call` it belongs to, when it was written, the `message` (None where somebody
    changed a memory by hand) and its `events`.
    """
    events = store.events(scope, latest=most)
    stands = standing(events)
    sources = {event.id: (event.details or {}).get("message") for event in events}
    wanted = sorted({source for source in sources.values() if source is not None})
    messages = {row.id: row for row in store.messages(scope, ids=wanted)} if wanted else {}
    entries: dict[tuple, dict[str, Any]] = {}
    for event in events:
        message = messages.get(sources[event.id])
        entry = entries.setdefault(
            (event.call, sources[event.id]),
            {
                "call": event.call,
                "created_at": event.created_at,
                "message": None if message is None else _message(message),
                "events": [],
            },
        )
        entry["events"].append(_event(event, stands[event.id]))
    return list(entries.values())


def _message(row: sa.Row) -> dict[str, Any]:
    names = ("role", "speaker", "content", "event_time")
    return {name: getattr(row, name) for name in names}


def _event(event: sa.Row, stands: bool) -> dict[str, Any]:
    details = event.details or {}
    return {
        "id": str(event.id),
        "event": event.kind,
        "memory_id": event.memory,
        "old_memory": (event.before or {}).get("text"),
        "new_memory": (event.after or {}).get("text"),
        "created_at": event.created_at,
        "event_time": event.event_time,
        "stands": stands,
        **{name: details.get(name) for name in ("facts", "prompt", "output")},
    }
