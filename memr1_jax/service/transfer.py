"""Export and import as JSON lines: messages and events, from which all else follows."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from memr1_jax.run.json_files import loads
from memr1_jax.service import schema
from memr1_jax.service.errors import Refused
from memr1_jax.service.queries import scope_of
from memr1_jax.service.records import Kind, State, new_state
from memr1_jax.service.scope import IDS, Scope
from memr1_jax.service.store import Store

_FORMAT = {"format": "memr1 memories", "version": 1}
_LONGEST_HEAD = 1000  # bytes
_TABLES = {"messages": schema.messages, "events": schema.events}
_WRONG = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_STATE = new_state("", "", event_time="")


def export_lines(store: Store, scope: Scope) -> Iterator[str]:
    """Writes the messages and the events under a scope, each as a JSON object on a line."""
    yield json.dumps(_FORMAT)
    for exact in store.versions(scope):
        ids = {name: getattr(exact, name) for name in IDS}
        for table, rows in (("messages", store.messages(exact)), ("events", store.events(exact))):
            for row in rows:
                if scope_of(row) == exact:
                    yield json.dumps({"table": table, **ids, **_fields(table, row)})


def is_export(path: str | Path) -> bool:
    """Tells whether a file begins as an export does.

    Raises:
      Refused: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return loads(file.readline(_LONGEST_HEAD)) == _FORMAT
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    except ValueError:
        return False


def import_lines(store: Store, lines: Iterable[str]) -> dict[str, int]:
    """Writes an export into a database that has none of its scopes; returns how many rows it was.

    It is one transaction: all of it, or nothing.

    Raises:
      Refused: a line is none of an export, or the database has memories under such ids already.
    """
    counts = dict.fromkeys(_TABLES, 0)
    places: dict[Scope, int] = {}
    numbers: dict[Scope, dict[str, dict[int, int]]] = {}  # of rows, in the file and here
    held: dict[tuple[Scope, str], State | None] = {}
    number = 0
    try:
        with store.writing() as connection:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = loads(line)
                if number == 1:
                    if row != _FORMAT:
                        raise ValueError("an export begins with its format")
                    continue
                scope = Scope.of(**{name: row.pop(name) or None for name in IDS})
                table = row.pop("table")
                if scope not in places:
                    places[scope] = store.new_scope(connection, scope, row["created_at"])
                    numbers[scope] = {name: {} for name in _TABLES}
                values = _checked(table, row, numbers[scope]) | {"scope": places[scope]}
                old = values.pop("id")
                inserted = connection.execute(_TABLES[table].insert().values(values))
                numbers[scope][table][old] = inserted.inserted_primary_key[0]
                counts[table] += 1
                if values.get("memory") is not None:
                    held[scope, values["memory"]] = values["after"]
            for (scope, memory), state in held.items():
                if state is not None:
                    values = {"id": memory, "scope": places[scope], "state": state}
                    connection.execute(schema.memories.insert().values(values))
    except Refused:
        raise
    except sa.exc.IntegrityError as error:
        raise Refused(
            "Ids of this export belong to memories that are there already; nothing was imported."
        ) from error
    except (*_WRONG, sa.exc.DataError) as error:  # PostgreSQL takes no null characters
        raise Refused(
            f"Line {number} is none of an export of memories ({type(error).__name__}: {error})."
            " Nothing was imported."
        ) from error
    return counts


def _fields(table: str, row: sa.Row) -> dict[str, Any]:
    return {c.name: getattr(row, c.name) for c in _TABLES[table].columns if c.name != "scope"}


def _checked(table: str, row: Mapping[str, Any], numbers) -> dict[str, Any]:
    """Returns the values of a row, with the ids of messages and events in the new database."""
    expected = {c.name for c in _TABLES[table].columns} - {"scope"}
    if set(row) != expected:
        raise ValueError(f"fields {sorted(set(row) ^ expected)}")
    if table == "messages":
        return dict(row)
    messages, events = numbers["messages"], numbers["events"]
    details = dict(row["details"] or {})
    for name, known in (("message", messages), ("retries", events)):
        if name in details:
            details[name] = known[details[name]]
    states = {name: _state(row[name], messages) for name in ("before", "after")}
    reverts = None if row["reverts"] is None else events[row["reverts"]]
    kind = Kind(row["kind"]).value
    return {**row, **states, "details": details, "reverts": reverts, "kind": kind}


def _state(state: Any, messages: Mapping[int, int]) -> State | None:
    if state is None:
        return None
    if set(state) != set(_STATE) or not all(
        isinstance(state[name], (type(value), type(None))) or value is None
        for name, value in _STATE.items()
    ):
        raise ValueError("a memory with other fields")
    return {**state, "sources": [messages[source] for source in state["sources"]]}
