"""Tables of the memory database, and the numbered migrations that lead to them.

`events` is the truth: it only grows, and every event holds a memory as it was before and after.
`memories` is what the events come to, kept so that reads are quick.
"""

from collections.abc import Callable

import sqlalchemy as sa

from memr1_jax.errors import UserError
from memr1_jax.service.pgvector import Vector, to_pgvector

metadata = sa.MetaData()
_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts plain INTEGER keys alone

schema_version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer))

scopes = sa.Table(
    "scopes",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    # Empty where the id was not given: NULLs would not be compared by the constraint.
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("version", _Id, nullable=False),  # counts the writes, so that late ones are noticed
    sa.UniqueConstraint("user_id", "agent_id", "run_id"),
)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("scope", _Id, sa.ForeignKey("scopes.id"), nullable=False),
    sa.Column("call", sa.Text, nullable=False),  # the `add` that brought it
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("speaker", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("event_time", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Index("messages_by_call", "scope", "call"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("scope", _Id, sa.ForeignKey("scopes.id"), nullable=False),
    sa.Column("call", sa.Text, nullable=False),
    sa.Column("memory", sa.Text),  # none where nothing was changed
    sa.Column("kind", sa.Text, nullable=False),  # see `store.Kind`
    sa.Column("before", sa.JSON(none_as_null=True)),  # the memory's state, or nothing
    sa.Column("after", sa.JSON(none_as_null=True)),
    sa.Column("event_time", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reverts", _Id),  # the event that this one takes back
    sa.Column("details", sa.JSON(none_as_null=True)),  # prompt, output, what was shown, digests
    sa.Index("events_by_memory", "scope", "memory"),
    sa.Index("events_by_call", "scope", "call"),
)


def _memories(metadata: sa.MetaData, *more: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(
        "memories",
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("scope", _Id, sa.ForeignKey(scopes.c.id), nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("vector_of", sa.Text),  # the embedder that made `vector`
        *more,
    )


memories = _memories(
    metadata,
    sa.Column("vector", sa.LargeBinary),  # float32
    sa.Index("memories_by_scope", "scope"),
)
pgvector_memories = _memories(  # the same table, where PostgreSQL has pgvector
    sa.MetaData(),
    sa.Column("vector", Vector),
    sa.Column("speaker", sa.Text, sa.Computed("state ->> 'speaker'")),
)


def _tables(connection: sa.Connection) -> bool:
    metadata.create_all(connection)
    return True


# A step that a database cannot take returns False, and is tried when it is opened again.
_MIGRATIONS: tuple[Callable[[sa.Connection], bool], ...] = (
    _tables,
    lambda connection: to_pgvector(connection, pgvector_memories),
)
VERSION = len(_MIGRATIONS)
PGVECTOR = 2  # the version whose vectors are pgvector's
_LOCK = 2508_19828  # of PostgreSQL's advisory locks


def migrate(connection: sa.Connection) -> int:
    """Brings a database to `VERSION`, or as far as it can go, within the caller's transaction.

    Returns the version that it has now.

    Raises:
      UserError: the database was written by a later version of memr1_jax.
    """
    if connection.dialect.name == "postgresql":  # servers that start together take turns
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    schema_version.create(connection, checkfirst=True)
    found = connection.execute(sa.select(schema_version.c.version)).scalar()
    if found is not None and found > VERSION:
        raise UserError(
            f"This memory database has schema {found}, and this version of memr1_jax knows"
            f" {VERSION}. Update memr1_jax, or export the memories with the version that wrote it."
        )
    version = found or 0
    for step in _MIGRATIONS[version:]:
        if not step(connection):
            break
        version += 1
    if found is None:
        connection.execute(schema_version.insert().values(version=version))
    elif found < version:
        connection.execute(schema_version.update().values(version=version))
    return version
