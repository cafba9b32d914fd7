"""Takes events back: memories become what they were before, and that is an event too."""

from collections.abc import Iterable

import sqlalchemy as sa

from memr1_jax.service.errors import Refused
from memr1_jax.service.queries import scope_of
from memr1_jax.service.records import Entry, Kind, State, until_current
from memr1_jax.service.scope import IDS, Scope
from memr1_jax.service.store import Store


def undo(
    store: Store, scope: Scope, *, memory: str = "", call: str = "", event: int = 0
) -> list[int]:
    """Takes back one event, the last event of a memory, or all events of a call.

    Taking back is an event too, which can be taken back. Returns the ids of the new events.

    Raises:
      Refused: there is nothing to take back, or a later event changed the same memory.
    """
    return until_current(lambda: _undo(store, scope, memory, call, event))


def _undo(store: Store, scope: Scope, memory: str, call: str, event: int) -> list[int]:
    found = store.events(
        scope, memories=[memory] if memory else (), call=call, ids=[event] if event else ()
    )
    touched = {e.memory for e in found if e.memory is not None}
    stands = standing(store.events(scope, memories=touched)) if touched else {}
    changing = [e for e in found if e.memory is not None and stands.get(e.id)]
    if memory:
        changing = [e for e in changing if e.reverts is None][-1:]
    if not changing:
        raise Refused(
            "There is nothing to undo: no such event under this user, or it was undone already."
        )
    entries, states = [], store.memories(scope)
    for past in reversed(changing):
        current = bare(states.get(past.memory))
        if current != past.after:
            raise Refused(
                f"Event {past.id} cannot be undone, as a later event changed the memory"
                f" {past.memory}. Undo that one first."
            )
        entries.append(
            Entry(Kind.UNDO, past.memory, current, past.before, past.event_time, reverts=past.id)
        )
        states[past.memory] = past.before
    return store.write(scope_of(changing[0]), entries)


def bare(state: State | None) -> State | None:
    """Returns a state without the ids that reading adds."""
    return state and {name: value for name, value in state.items() if name not in IDS}


def standing(events: Iterable[sa.Row]) -> dict[int, bool]:
    """Tells of each event whether it stands; undoing an undoing makes the first stand again."""
    reverts = {event.id: event.reverts for event in events}
    found: dict[int, bool] = {}

    def put(event: int | None, stands: bool) -> None:
        while event in reverts:
            found[event] = stands
            event, stands = reverts[event], not stands

    for event in reverts:
        put(event, True)
    return found
