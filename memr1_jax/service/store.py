"""The memory database: an append-only list of events, and the memories that they come to.

One SQLite file, or PostgreSQL by URL. A write is one transaction: what a caller was told is there,
all of it, whatever happens to the process; what it was not told is wholly absent. Every statement
is bound to a scope.
"""

import contextlib
import dataclasses
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from memr1_jax.options import user_path
from memr1_jax.service import clock, schema
from memr1_jax.service.errors import Refused
from memr1_jax.service.queries import Queries, exactly
from memr1_jax.service.records import Entry, Here, Message, Outdated
from memr1_jax.service.scope import Scope

_WAIT_MS = 60_000  # that a writer queues for another one


class Store(Queries):
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
                version = schema.migrate(connection)
        except (sa.exc.DatabaseError, sa.exc.ArgumentError, ImportError, OSError) as error:
            shown = str(place).rpartition("@")[2]  # without a password
            raise Refused(
                f"The memory database {shown} cannot be opened ({getattr(error, 'orig', error)})."
                " Check the path or URL; a file must be a database that memr1_jax has written."
            ) from error
        self.pgvector = version >= schema.PGVECTOR
        self.memory_table = schema.pgvector_memories if self.pgvector else schema.memories

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

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

    def set_vectors(
        self, scope: Scope, embedder: str, vectors: Mapping[str, bytes], version: int
    ) -> None:
        """Keeps the vectors that `embedder` made of a scope's memories as they were at a version.

        None is kept where the scope was written to since.
        """
        if not vectors:
            return
        table, scopes = self.memory_table, schema.scopes
        current = sa.select(scopes.c.id).where(exactly(scope), scopes.c.version == version)
        with self.writing() as connection:
            place = connection.execute(current.with_for_update()).scalar()
            if place is None:
                return
            statement = (
                table.update()
                .where(table.c.id == sa.bindparam("memory"), table.c.scope == place)
                .values(vector=sa.bindparam("bytes"), vector_of=embedder)
            )
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
        query = sa.select(table.c.id, table.c.version).where(exactly(scope))
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
        table = self.memory_table
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
