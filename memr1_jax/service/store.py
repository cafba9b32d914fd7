"""The memory database: an append-only list of events, and the memories that they come to.

One SQLite file, or PostgreSQL by URL. A write is one transaction: what a caller was told is there,
all of it, whatever happens to the process; what it was not told is wholly absent. Every statement
is bound to a scope.
"""

import contextlib
import dataclasses
import enum
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from memr1_jax.errors import UserError
from memr1_jax.service import clock, schema
from memr1_jax.service.scope import Scope

State = dict[str, Any]  # of one memory; see `new_state`

_WAIT_MS = 60_000  # that a writer queues for another one


class Kind(enum.StrEnum):
    """What happened to a memory; NONE and FAILED changed nothing."""

    ADD = "ADD"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    NONE = "NONE"
    FAILED = "FAILED"
    UNDO = "UNDO"


class Outdated(Exception):
    """Somebody else wrote to the scope in the meantime: read it again."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One event as it is to be written; `before` is what the writer believes the memory to be."""

    kind: Kind
    memory: str | None
    before: State | None
    after: State | None
    event_time: str
    actor: str = ""
    details: Mapping[str, Any] | None = None
    reverts: int | None = None


@dataclasses.dataclass(frozen=True)
class Message:
    """A message as it came, with the time of what it tells."""

    role: str
    speaker: str
    content: str
    event_time: str


def new_state(text: str, speaker: str, *, event_time: str, **more: Any) -> State:
    """Makes the state of a memory that is written now; `more` replaces further fields.

    `tokens` is the text as the manager wrote it, for the tokenizer `tokenizer`; `slot` its place in
    the bank of its speaker. `event_time` is the time of what it tells, `first_event_time` of what
    it told at first; `sources` are ids of messages.
    """
    moment = clock.now()
    state = {
        "text": text,
        "speaker": speaker,
        "slot": None,
        "tokens": None,
        "tokenizer": "",
        "metadata": {},
        "event_time": event_time,
        "first_event_time": event_time,
        "created_at": moment,
        "updated_at": moment,
        "expires": None,
        "sources": [],
        "role": "user",
        "actor_id": speaker,
    }
    if unknown := set(more) - set(state):
        raise TypeError(f"A memory has no {unknown}.")
    return state | more


class Store:
    """A memory database; one instance serves all threads of a process."""

    def __init__(self, place: str | Path):
        """Opens, and where needed makes, the database at a path or URL.

        Raises:
          UserError: it cannot be opened, is no memory database, or is of a later version.
        """
        self.place = str(place)
        url = self.place
        if "://" not in url:
            path = Path(url).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{path}"
        if url.startswith("postgresql://"):
            url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        self._engine = sa.create_engine(url)
        self._sqlite = self._engine.dialect.name == "sqlite"
        if self._sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        try:
            with self._writing() as connection:
                schema.migrate(connection)
        except sa.exc.DatabaseError as error:
            raise UserError(
                f"The memory database {self.place} cannot be opened ({error.orig}). Check the path"
                " or URL; a file must be a database that memr1_jax has written."
            ) from error

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    # Reading

    def version(self, scope: Scope) -> int:
        """Counts the writes to exactly this scope."""
        with self._engine.connect() as connection:
            query = sa.select(schema.scopes.c.version).where(_exactly(scope))
            return connection.execute(query).scalar() or 0

    def memories(self, scope: Scope, exactly: bool = False) -> dict[str, State]:
        """Returns all memories under the ids of a scope, oldest first, by id."""
        table = schema.memories
        query = (
            sa.select(table.c.id, table.c.state, *_ids())
            .join(schema.scopes)
            .where(_exactly(scope) if exactly else _within(scope))
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        found = {row.id: row.state | _given(row) for row in rows}
        return dict(sorted(found.items(), key=lambda item: (item[1]["created_at"], item[0])))

    def scope_of(self, memory: str) -> Scope:
        """Returns the scope that a memory was written under.

        Raises:
          UserError: there is and was no such memory.
        """
        query = (
            sa.select(*_ids())
            .join(schema.events, schema.events.c.scope == schema.scopes.c.id)
            .where(schema.events.c.memory == memory)
            .limit(1)
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise UserError(f"There is no memory with the id {memory!r}.")
        return Scope(row.user_id, row.agent_id, row.run_id)

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
        return [(Scope(row.user_id, row.agent_id, row.run_id), row.count) for row in rows]

    def events(
        self, scope: Scope, *, memories: Iterable[str] = (), call: str = "", event: int = 0
    ) -> list[sa.Row]:
        """Returns events under the ids of a scope in their order: of memories, a call, or all."""
        table = schema.events
        query = sa.select(table, *_ids()).join(schema.scopes).where(_within(scope))
        if names := list(memories):
            query = query.where(table.c.memory.in_(names))
        for column, value in ((table.c.call, call), (table.c.id, event)):
            if value:
                query = query.where(column == value)
        with self._engine.connect() as connection:
            return list(connection.execute(query.order_by(table.c.id)).all())

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
        return dict(sorted(found.items(), key=lambda item: (item[1]["created_at"], item[0])))

    def messages(self, scope: Scope, call: str = "", ids: Sequence[int] = ()) -> list[sa.Row]:
        """Returns messages under the ids of a scope: of a call, or with certain ids."""
        table = schema.messages
        query = sa.select(table).join(schema.scopes).where(_within(scope))
        if call:
            query = query.where(table.c.call == call)
        if ids:
            query = query.where(table.c.id.in_(list(ids)))
        with self._engine.connect() as connection:
            return list(connection.execute(query.order_by(table.c.id)).all())

    def vectors(self, scope: Scope, embedder: str) -> dict[str, bytes | None]:
        """Returns the vectors of all memories under a scope; None where `embedder` made none."""
        table = schema.memories
        query = sa.select(table.c.id, table.c.vector, table.c.vector_of).join(schema.scopes)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(_within(scope))).all()
        return {row.id: row.vector if row.vector_of == embedder else None for row in rows}

    # Writing

    def write(
        self,
        scope: Scope,
        entries: Sequence[Entry],
        *,
        call: str = "",
        messages: Sequence[Message] = (),
        version: int | None = None,
    ) -> list[int]:
        """Writes messages and events as one transaction; returns the ids of the events.

        Args:
          scope: that of all of it.
          entries: the events, in order. The memories must be as their `before` says.
          call: names the call that this belongs to; a new name by default.
          messages: what was said; a `Here` among the `sources` of an `after` becomes its id.
          version: that of the scope when the writer read it, see `version`.

        Raises:
          Outdated: the scope was written to since.
        """
        call, moment = call or str(uuid.uuid4()), clock.now()
        with self._writing() as connection:
            place, found = self._scope(connection, scope, moment)
            if version is not None and found != version:
                raise Outdated
            sources = [
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
                if sources and entry.after is not None:
                    after = entry.after | {"sources": _numbered(entry.after["sources"], sources)}
                    entry = dataclasses.replace(entry, after=after)
                ids.append(self._write(connection, place, call, moment, entry))
            connection.execute(
                schema.scopes.update().where(schema.scopes.c.id == place).values(version=found + 1)
            )
        return ids

    def set_vectors(self, scope: Scope, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """Keeps the vectors that `embedder` made; memories that are gone are passed over."""
        if not vectors:
            return
        table = schema.memories
        within = sa.select(schema.scopes.c.id).where(_within(scope))
        statement = (
            table.update()
            .where(table.c.id == sa.bindparam("memory"), table.c.scope.in_(within))
            .values(vector=sa.bindparam("bytes"), vector_of=embedder)
        )
        with self._writing() as connection:
            connection.execute(
                statement, [{"memory": key, "bytes": value} for key, value in vectors.items()]
            )

    def undo(self, scope: Scope, *, memory: str = "", call: str = "", event: int = 0) -> list[int]:
        """Takes back one event, the last event of a memory, or all events of a call.

        Taking back is an event too, which can be taken back. Returns the ids of the new events.

        Raises:
          UserError: there is nothing to take back, or a later event changed the same memory.
        """
        found = self.events(scope, memories=[memory] if memory else (), call=call, event=event)
        touched = {e.memory for e in found if e.memory is not None}
        standing = _standing(self.events(scope, memories=touched)) if touched else {}
        changing = [e for e in found if standing.get(e.id)]
        if memory:
            changing = [e for e in changing if e.reverts is None][-1:]
        if not changing:
            raise UserError(
                "There is nothing to undo: no such event under this user, or it was undone already."
            )
        entries, states = [], self.memories(scope)
        for past in reversed(changing):
            current = _bare(states.get(past.memory))
            if current != past.after:
                raise UserError(
                    f"Event {past.id} cannot be undone, as a later event changed the memory"
                    f" {past.memory}. Undo that one first."
                )
            after = None if past.before is None else dict(past.before)
            entries.append(
                Entry(
                    Kind.UNDO,
                    past.memory,
                    current,
                    after,
                    past.event_time,
                    reverts=past.id,
                )
            )
            states[past.memory] = after
        exact = Scope(changing[0].user_id, changing[0].agent_id, changing[0].run_id)
        return self.write(exact, entries)

    def compact(self) -> None:
        """Gives the space of what is gone back to the disk; events are kept."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if self._sqlite:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("VACUUM")

    def reset(self) -> None:
        """Deletes everything, events included."""
        with self._writing() as connection:
            for table in (schema.memories, schema.events, schema.messages, schema.scopes):
                connection.execute(table.delete())

    # Parts

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds the right to write from its beginning."""
        with self._engine.connect() as connection:
            if self._sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            with contextlib.ExitStack() as stack:
                stack.callback(connection.rollback)  # does nothing after the commit
                yield connection
                connection.commit()

    def _scope(self, connection, scope: Scope, moment: str) -> tuple[int, int]:
        """The row of a scope, made where there is none, locked; and its version."""
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

    def _write(self, connection, place: int, call: str, moment: str, entry: Entry) -> int:
        table = schema.memories
        if entry.memory is not None:
            here = (table.c.id == entry.memory) & (table.c.scope == place)
            current = connection.execute(sa.select(table.c.state).where(here)).scalar()
            if current != entry.before:
                raise Outdated
            if entry.after is None:
                connection.execute(table.delete().where(here))
            elif current is None:
                connection.execute(
                    table.insert().values(id=entry.memory, scope=place, state=entry.after)
                )
            else:
                fresh = {"vector": None} if current["text"] != entry.after["text"] else {}
                connection.execute(table.update().where(here).values(state=entry.after, **fresh))
        values = {field.name: getattr(entry, field.name) for field in dataclasses.fields(Entry)} | {
            "kind": entry.kind.value,
            "details": dict(entry.details or {}),
        }
        inserted = connection.execute(
            schema.events.insert().values(scope=place, call=call, created_at=moment, **values)
        )
        return inserted.inserted_primary_key[0]


def _prepare_sqlite(connection, _record) -> None:
    """Readers do not wait for writers (WAL), and a commit is on the disk when it returns."""
    connection.isolation_level = None  # transactions are begun by `_writing`
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
    """All scopes that have the ids given."""
    return sa.and_(*(schema.scopes.c[name] == value for name, value in scope.given.items()))


def _exactly(scope: Scope) -> sa.ColumnElement[bool]:
    """The one scope that has these ids and no others."""
    ids = dataclasses.asdict(scope)
    return sa.and_(*(schema.scopes.c[name] == value for name, value in ids.items()))


def _given(row) -> dict[str, str]:
    """The ids of a row of a join, as the state of a memory carries them outwards."""
    return {"user_id": row.user_id, "agent_id": row.agent_id, "run_id": row.run_id}


def _bare(state: State | None) -> State | None:
    """A state without the ids that reading adds."""
    if state is None:
        return None
    return {
        key: value for key, value in state.items() if key not in ("user_id", "agent_id", "run_id")
    }


def _standing(events: Iterable[sa.Row]) -> dict[int, bool]:
    """Tells of each event whether it stands; undoing an undoing makes the first stand again."""
    reverts = {event.id: event.reverts for event in events}
    standing: dict[int, bool] = {}

    def put(event: int | None, stands: bool) -> None:
        while event in reverts:
            standing[event] = stands
            event, stands = reverts[event], not stands

    for event in reverts:
        put(event, True)
    return standing


def _numbered(places: Iterable[Any], sources: Sequence[int]) -> list[int]:
    return [sources[place.index] if isinstance(place, Here) else place for place in places]


@dataclasses.dataclass(frozen=True)
class Here:
    """A source that is written in the same call: its place among the messages."""

    index: int
