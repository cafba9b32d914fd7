"""The memory database: an append-only list of events, and the memories that they come to.

One SQLite file, or PostgreSQL by URL. A write is one transaction: what a caller was told is there,
all of it, whatever happens to the process; what it was not told is wholly absent. Every statement
is bound to a scope.
"""

import contextlib
import dataclasses
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from memr1_jax.options import user_path
from memr1_jax.service import clock, schema
from memr1_jax.service.errors import Refused, Unknown
from memr1_jax.service.records import Entry, Here, Message, Outdated, State
from memr1_jax.service.scope import Scope

_WAIT_MS = 60_000  # that a writer queues for another one


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A scope at one moment: its version, its last event, memories and those vectors there are."""

    version: int
    event: int
    states: dict[str, State]
    vectors: dict[str, bytes]


class Store:
    """A memory database; one instance serves all threads of a process."""

    def __init__(self, place: str | Path):
        """Opens the database at a path or URL, and makes it where needed.

        Raises:
          Refused: it cannot be opened, is no memory database, or is of a later version.
        """
        try:
            url = _url(str(place))
            self._engine = sa.create_engine(url, max_overflow=-1)  # a reader never waits
            self._sqlite = self._engine.dialect.name == "sqlite"
            if self._sqlite:
                sa.event.listen(self._engine, "connect", _prepare_sqlite)
            with self.writing() as connection:
                schema.migrate(connection)
        except (sa.exc.DatabaseError, sa.exc.ArgumentError, ImportError, OSError) as error:
            shown = str(place).rpartition("@")[2]  # without a password
            raise Refused(
                f"The memory database {shown} cannot be opened ({getattr(error, 'orig', error)})."
                " Check the path or URL; a file must be a database that memr1_jax has written."
            ) from error

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    # Reading

    def versions(self, scope: Scope) -> dict[Scope, int]:
        """Counts the writes to each scope that has the ids of this one."""
        query = sa.select(*_ids(), schema.scopes.c.version).where(_within(scope))
        with self._engine.connect() as connection:
            return {scope_of(row): row.version for row in connection.execute(query)}

    def snapshot(self, scope: Scope, embedder: str) -> "Snapshot":
        """Returns all of exactly this scope as it is at one moment, with `embedder`'s vectors."""
        table, where = schema.memories, _exactly(scope)
        query = sa.select(table).join(schema.scopes).where(where)
        last = sa.select(sa.func.max(schema.events.c.id)).join(schema.scopes).where(where)
        with self._reading() as connection:
            version = connection.execute(sa.select(schema.scopes.c.version).where(where)).scalar()
            event = connection.execute(last).scalar()
            rows = connection.execute(query).all()
        ids = dataclasses.asdict(scope)
        states = {row.id: row.state | ids for row in rows}
        vectors = {row.id: row.vector for row in rows if row.vector_of == embedder and row.vector}
        return Snapshot(version or 0, event or 0, states, vectors)

    def since(self, scope: Scope, event: int) -> tuple[int, list[sa.Row]]:
        """Returns the version of exactly this scope, and its events after one."""
        table, where = schema.events, _exactly(scope)
        query = sa.select(table).join(schema.scopes).where(where, table.c.id > event)
        with self._reading() as connection:
            version = connection.execute(sa.select(schema.scopes.c.version).where(where)).scalar()
            return version or 0, list(connection.execute(query.order_by(table.c.id)))

    def memory(self, memory: str) -> State | None:
        """Returns the state of one memory, None where there is none."""
        query = sa.select(schema.memories.c.state, *_ids()).join(schema.scopes)
        with self._engine.connect() as connection:
            row = connection.execute(query.where(schema.memories.c.id == memory)).first()
        return None if row is None else row.state | _given(row)

    def memories(self, scope: Scope) -> dict[str, State]:
        """Returns all memories under the ids of a scope, oldest first, by id."""
        table = schema.memories
        query = sa.select(table.c.id, table.c.state, *_ids()).join(schema.scopes)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(_within(scope))).all()
        return oldest_first({row.id: row.state | _given(row) for row in rows})

    def scope_of(self, *, memory: str = "", call: str = "", event: int = 0) -> Scope:
        """Returns the scope that a memory, a call or an event was written under.

        Raises:
          Unknown: there is and was no such thing.
        """
        table = schema.events
        query = sa.select(*_ids()).join(table, table.c.scope == schema.scopes.c.id)
        for column, value in ((table.c.memory, memory), (table.c.call, call), (table.c.id, event)):
            if value:
                query = query.where(column == value)
        with self._engine.connect() as connection:
            row = connection.execute(query.limit(1)).first()
        if row is None or not (memory or call or event):
            what = "memory" if memory else "call" if call else "event"
            raise Unknown(f"There is no {what} with the id {memory or call or event!r}.")
        return scope_of(row)

    def scopes(self) -> list[tuple[Scope, int]]:
        """Lists all scopes with the number of memories in each."""
        count = sa.func.count(schema.memories.c.id)
        query = (
            sa.select(*_ids(), count.label("count"))
            .outerjoin(schema.memories)
            .group_by(*_ids())
            .order_by(*_ids())
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [(scope_of(row), row.count) for row in rows]

    def counts(self) -> dict[str, int]:
        """Counts what the database holds."""
        tables = (schema.memories, schema.events, schema.messages)
        with self._engine.connect() as connection:
            return {
                table.name: connection.execute(
                    sa.select(sa.func.count()).select_from(table)
                ).scalar_one()
                for table in tables
            }

    def events(
        self,
        scope: Scope,
        *,
        memories: Iterable[str] = (),
        call: str = "",
        ids: Iterable[int] = (),
        latest: int | None = None,
    ) -> list[sa.Row]:
        """Returns events under the ids of a scope in their order; empty arguments let all pass.

        Args:
          scope: whose.
          memories: of these memories alone.
          call: of this call alone.
          ids: with these numbers alone.
          latest: how many at most, of these the last ones.
        """
        table = schema.events
        query = sa.select(table, *_ids()).join(schema.scopes).where(_within(scope))
        if names := list(memories):
            query = query.where(table.c.memory.in_(names))
        if numbers := list(ids):
            query = query.where(table.c.id.in_(numbers))
        if call:
            query = query.where(table.c.call == call)
        query = query.order_by(table.c.id.desc()).limit(latest)
        with self._engine.connect() as connection:
            return list(connection.execute(query).all())[::-1]

    def as_of(
        self, scope: Scope, *, written_by: str | None = None, happened_by: str | None = None
    ) -> dict[str, State]:
        """Replays the events up to a moment, by the time of writing, of the event, or both."""
        found: dict[str, State] = {}
        for event in self.events(scope):
            late = written_by is not None and event.created_at > written_by
            if late or (happened_by is not None and event.event_time > happened_by):
                continue
            if event.memory is None:
                continue
            found.pop(event.memory, None)
            if event.after is not None:
                found[event.memory] = event.after | _given(event)
        return oldest_first(found)

    def messages(self, scope: Scope, call: str = "", ids: Sequence[int] = ()) -> list[sa.Row]:
        """Returns messages under the ids of a scope: of a call, or with certain ids."""
        table = schema.messages
        query = sa.select(table, *_ids()).join(schema.scopes).where(_within(scope))
        if call:
            query = query.where(table.c.call == call)
        if ids:
            query = query.where(table.c.id.in_(list(ids)))
        with self._engine.connect() as connection:
            return list(connection.execute(query.order_by(table.c.id)).all())

    # Writing

    def write(
        self,
        scope: Scope,
        entries: Sequence[Entry],
        *,
        call: str = "",
        messages: Sequence[Message] = (),
        stored: Sequence[int] = (),
        version: int | None = None,
        embedder: str = "",
        moment: str = "",
    ) -> list[int]:
        """Writes messages and events as one transaction; returns the ids of the events.

        Args:
          scope: that of all of it.
          entries: the events, in order. The memories must be as their `before` says.
          call: names the call that this belongs to; a new name by default.
          messages: what was said; a `Here` in a state or in details becomes the id of one.
          stored: ids of the messages, where they were written before.
          version: that of the scope when the writer read it, see `snapshot`.
          embedder: what made the entries' vectors.
          moment: when it was written; now, unless it is copied from another database.

        Raises:
          Outdated: the scope was written to since.
        """
        call, moment = call or str(uuid.uuid4()), moment or clock.now()
        with self.writing() as connection:
            place, found = self._scope(connection, scope, moment)
            if version is not None and found != version:
                raise Outdated
            sources = list(stored) or [
                connection.execute(
                    schema.messages.insert().values(
                        scope=place,
                        call=call,
                        place=index,
                        created_at=moment,
                        **dataclasses.asdict(message),
                    )
                ).inserted_primary_key[0]
                for index, message in enumerate(messages)
            ]
            ids = []
            for entry in entries:
                if sources:
                    entry = _numbered(entry, sources)
                ids.append(self._write(connection, place, call, moment, entry, embedder))
            connection.execute(
                schema.scopes.update().where(schema.scopes.c.id == place).values(version=found + 1)
            )
        return ids

    def set_vectors(self, scope: Scope, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """Keeps the vectors that `embedder` made; memories that are gone are passed over."""
        if not vectors:
            return
        table = schema.memories
        place = sa.select(schema.scopes.c.id).where(_exactly(scope)).scalar_subquery()
        statement = (
            table.update()
            .where(table.c.id == sa.bindparam("memory"), table.c.scope == place)
            .values(vector=sa.bindparam("bytes"), vector_of=embedder)
        )
        with self.writing() as connection:
            connection.execute(
                statement, [{"memory": key, "bytes": value} for key, value in vectors.items()]
            )

    def compact(self) -> None:
        """Gives the space of what is gone back to the disk; events are kept."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if self._sqlite:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("VACUUM")

    def reset(self) -> None:
        """Deletes everything, events included."""
        with self.writing() as connection:
            for table in (schema.memories, schema.events, schema.messages, schema.scopes):
                connection.execute(table.delete())

    # Parts

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """Opens a transaction whose statements all see the same moment."""
        with self._engine.connect() as connection:
            if self._sqlite:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Opens a transaction that holds the right to write from its beginning."""
        with self._engine.connect() as connection:
            if self._sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            with contextlib.ExitStack() as stack:
                stack.callback(connection.rollback)  # does nothing after the commit
                yield connection
                connection.commit()

    def _scope(self, connection, scope: Scope, moment: str) -> tuple[int, int]:
        """Returns the row of a scope, made where there is none, locked; and its version."""
        table = schema.scopes
        query = sa.select(table.c.id, table.c.version).where(_exactly(scope))
        if not self._sqlite:
            query = query.with_for_update()
        row = connection.execute(query).first()
        if row is None:
            values = dataclasses.asdict(scope) | {"created_at": moment, "version": 0}
            if not self._sqlite:  # somebody else may make it just now
                from sqlalchemy.dialects.postgresql import insert

                connection.execute(insert(table).values(**values).on_conflict_do_nothing())
            else:
                connection.execute(table.insert().values(**values))
            row = connection.execute(query).one()
        return row.id, row.version

    def new_scope(self, connection: sa.Connection, scope: Scope, moment: str) -> int:
        """Makes a scope for an import, within its transaction, and returns the number of its row.

        Raises:
          Refused: something was written under these ids before.
        """
        place, version = self._scope(connection, scope, moment)
        if version:
            raise Refused(
                f"This database has memories of {scope.given} already; nothing was imported. Import"
                " into another database."
            )
        connection.execute(
            schema.scopes.update().where(schema.scopes.c.id == place).values(version=1)
        )
        return place

    def _write(self, connection, place, call, moment, entry: Entry, embedder: str) -> int:
        table = schema.memories
        if entry.memory is not None:
            here = (table.c.id == entry.memory) & (table.c.scope == place)
            current = connection.execute(sa.select(table.c.state).where(here)).scalar()
            if current != entry.before:
                raise Outdated
            vector = {"vector": entry.vector, "vector_of": embedder if entry.vector else None}
            if entry.after is None:
                connection.execute(table.delete().where(here))
            elif current is None:
                values = {"id": entry.memory, "scope": place, "state": entry.after, **vector}
                connection.execute(table.insert().values(values))
            else:
                fresh = vector if current["text"] != entry.after["text"] else {}
                connection.execute(table.update().where(here).values(state=entry.after, **fresh))
        values = dataclasses.asdict(entry) | {"kind": entry.kind.value}
        values["details"] = dict(values["details"] or {})
        del values["vector"]
        inserted = connection.execute(
            schema.events.insert().values(scope=place, call=call, created_at=moment, **values)
        )
        return inserted.inserted_primary_key[0]


def _url(place: str) -> str:
    """Makes a URL for SQLAlchemy of a path or a URL."""
    if "://" not in place:
        path = user_path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{path}"
    for name in ("postgresql://", "postgres://"):
        place = place.replace(name, "postgresql+psycopg://", 1) if place.startswith(name) else place
    return place


def _prepare_sqlite(connection, _record) -> None:
    """Makes readers not wait for writers (WAL), and a commit return once it is on the disk."""
    connection.isolation_level = None  # transactions are begun by `writing`
    for setting in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_WAIT_MS}",
    ):
        connection.execute(f"PRAGMA {setting}")


def _ids() -> Iterable[sa.Column]:
    return schema.scopes.c.user_id, schema.scopes.c.agent_id, schema.scopes.c.run_id


def _within(scope: Scope) -> sa.ColumnElement[bool]:
    """Selects all scopes that have the ids given."""
    return sa.and_(*(schema.scopes.c[name] == value for name, value in scope.given.items()))


def _exactly(scope: Scope) -> sa.ColumnElement[bool]:
    """Selects the one scope that has these ids and no others."""
    ids = dataclasses.asdict(scope)
    return sa.and_(*(schema.scopes.c[name] == value for name, value in ids.items()))


def scope_of(row: sa.Row) -> Scope:
    """Returns the scope of a row that has its ids."""
    return Scope(row.user_id, row.agent_id, row.run_id)


def oldest_first(states: Mapping[str, State]) -> dict[str, State]:
    """Orders memories by the time of writing."""
    return dict(sorted(states.items(), key=lambda item: (item[1]["created_at"], item[0])))


def _given(row) -> dict[str, str]:
    """Returns the ids of a row of a join, as the state of a memory carries them outwards."""
    return {"user_id": row.user_id, "agent_id": row.agent_id, "run_id": row.run_id}


def _numbered(entry: Entry, sources: Sequence[int]) -> Entry:
    """Puts the ids of messages where an entry names their places in the call."""

    def put(value: Any) -> Any:
        if isinstance(value, Here):
            return sources[value.index]
        if isinstance(value, Mapping):
            return {name: put(item) for name, item in value.items()}
        return [put(item) for item in value] if isinstance(value, list) else value

    parts = ("before", "after", "details")
    return dataclasses.replace(entry, **{name: put(getattr(entry, name)) for name in parts})
