"""Reads of the memory database, each bound to a scope."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import sqlalchemy as sa

from memr1_jax.service import schema
from memr1_jax.service.errors import Unknown
from memr1_jax.service.records import State
from memr1_jax.service.scope import Scope


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Holds a scope at one moment: version, last event, memories and the known vectors."""

    version: int
    event: int
    states: dict[str, State]
    vectors: dict[str, bytes]


# PostgreSQL guesses how many memories a scope has, and would often read those of all scopes.
_BY_INDEX = sa.select(
    *(
        sa.func.set_config(f"enable_{plan}", "off", True)  # until the transaction ends
        for plan in ("seqscan", "hashjoin", "mergejoin")
    )
)


class Queries:
    """Reads for a `Store`; each statement sees one moment."""

    _engine: sa.Engine
    _sqlite: bool
    memory_table: sa.Table  # memories, with vectors as this database keeps them

    def versions(self, scope: Scope) -> dict[Scope, int]:
        """Counts the writes to each scope that has the ids of this one."""
        query = sa.select(*_ids(), schema.scopes.c.version).where(_within(scope))
        with self._engine.connect() as connection:
            return {scope_of(row): row.version for row in connection.execute(query)}

    def snapshot(self, scope: Scope, embedder: str) -> "Snapshot":
        """Returns all of exactly this scope as it is at one moment, with `embedder`'s vectors."""
        table, where = self.memory_table, exactly(scope)
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

    def nearest(
        self,
        scope: Scope,
        embedder: str,
        query: np.ndarray,
        most: int,
        *,
        by_speaker: bool = False,
        speaker: str | None = None,
    ) -> list[sa.Row]:
        """Returns the memories under a scope that are nearest to a query, best first; by pgvector.

        Those without a vector of `embedder` have no score, and come before all others.

        Args:
          scope: whose.
          embedder: what made query and vectors.
          query: float32 `[E]`.
          most: how many at most.
          by_speaker: whether so many of each speaker of each exact scope.
          speaker: of this one alone.
        """
        found = nearest_memories(scope, embedder, query, most, by_speaker, speaker)
        with self._engine.connect() as connection:
            connection.execute(_BY_INDEX)
            return list(connection.execute(found).all())

    def without_vector(
        self, scope: Scope, embedder: str
    ) -> dict[tuple[Scope, int], dict[str, State]]:
        """Returns the memories under a scope that `embedder` made no vector of.

        They come by exact scope with its version.
        """
        table = self.memory_table
        query = sa.select(table.c.id, table.c.state, *_ids(), schema.scopes.c.version)
        query = query.join(schema.scopes).where(_within(scope), _strange(table, embedder))
        found: dict[tuple[Scope, int], dict[str, State]] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(query):
                found.setdefault((scope_of(row), row.version), {})[row.id] = row.state
        return found

    def since(self, scope: Scope, event: int) -> tuple[int, list[sa.Row]]:
        """Returns the version of exactly this scope, and its events after one."""
        table, where = schema.events, exactly(scope)
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
        """Returns what held at a moment, by the time of writing, of the event, or both."""
        table = schema.events
        last = sa.select(sa.func.max(table.c.id)).join(schema.scopes).where(_within(scope))
        if written_by is not None:
            last = last.where(table.c.created_at <= written_by)
        if happened_by is not None:
            last = last.where(table.c.event_time <= happened_by)
        query = sa.select(table.c.memory, table.c.after, *_ids()).join(schema.scopes)
        query = query.where(table.c.id.in_(last.group_by(table.c.memory)), _within(scope))
        query = query.where(table.c.memory.is_not(None), table.c.after.is_not(sa.null()))
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return oldest_first({row.memory: row.after | _given(row) for row in rows})

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


def nearest_memories(
    scope: Scope,
    embedder: str,
    query: np.ndarray,
    most: int,
    by_speaker: bool,
    speaker: str | None,
) -> sa.Select:
    """Selects what `Queries.nearest` returns.

    Every vector of the scope is compared. An index (HNSW) would be approximate: it looks for the
    nearest of all users, and of these little or nothing may be of the scope.
    """
    table = schema.pgvector_memories
    product = table.c.vector.op("<#>", return_type=sa.Float)(query.astype(np.float32).tobytes())
    score = sa.case((sa.not_(_strange(table, embedder)), -product)).label("score")
    places = sa.select(schema.scopes.c.id).where(_within(scope)).scalar_subquery()
    where = table.c.scope == sa.any_(sa.func.array(places, type_=sa.ARRAY(sa.BigInteger)))
    if speaker is not None:
        where &= table.c.speaker == speaker
    ranked = sa.select(table.c.id, score).where(where)
    if by_speaker:
        rank = sa.func.row_number().over(
            partition_by=(table.c.scope, table.c.speaker), order_by=score.desc()
        )
        every = ranked.add_columns(rank.label("rank")).subquery()
        ranked = sa.select(every).where(every.c.rank <= most)
    else:
        ranked = ranked.order_by(score.desc()).limit(most)
    best = ranked.subquery()
    return (
        sa.select(table.c.id, table.c.state, table.c.vector, *_ids(), best.c.score)
        .join(best, best.c.id == table.c.id)
        .join(schema.scopes, schema.scopes.c.id == table.c.scope)
        .order_by(best.c.score.desc())
    )


def _strange(table: sa.Table, embedder: str) -> sa.ColumnElement[bool]:
    """Selects memories that have no vector of this embedder."""
    return table.c.vector.is_(None) | table.c.vector_of.is_distinct_from(embedder)


def _ids() -> Iterable[sa.Column]:
    return schema.scopes.c.user_id, schema.scopes.c.agent_id, schema.scopes.c.run_id


def _within(scope: Scope) -> sa.ColumnElement[bool]:
    """Selects all scopes that have the ids given."""
    return sa.and_(*(schema.scopes.c[name] == value for name, value in scope.given.items()))


def exactly(scope: Scope) -> sa.ColumnElement[bool]:
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
