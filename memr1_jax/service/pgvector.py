"""pgvector's column type, and the migration that gives a PostgreSQL database one."""

from typing import Any

import numpy as np
import sqlalchemy as sa

WIDEST = 16_000  # numbers of a `vector`
_CHUNK = 1000  # memories that are carried over together
_INSTALLED = sa.text("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'")
_CHANGES = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    "ALTER TABLE memories RENAME COLUMN vector TO bytes",
    "ALTER TABLE memories ADD COLUMN vector vector",
    "ALTER TABLE memories ALTER COLUMN vector SET STORAGE EXTENDED",  # zeros of TF-IDF shrink
    "ALTER TABLE memories ADD COLUMN speaker text GENERATED ALWAYS AS (state ->> 'speaker') STORED",
)


class Vector(sa.types.UserDefinedType):
    """A column of type `vector`, read and written as float32 bytes, as a binary column is.

    What the type cannot hold is kept as nothing: too many numbers, or one that is not finite.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Names the type."""
        return "vector"

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        """Writes a vector as text, which PostgreSQL reads back to the same float32."""

        def write(value: bytes | None) -> str | None:
            numbers = np.frombuffer(value or b"", np.float32)
            if not 0 < len(numbers) <= WIDEST or not np.isfinite(numbers).all():
                return None
            return f"[{','.join(map(repr, numbers.tolist()))}]"

        return write

    def column_expression(self, column: Any) -> Any:
        """Selects the type's binary form: two counts of 16 bits, then big-endian float32."""
        return sa.func.vector_send(column, type_=self)

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Any:
        """Reads that form."""

        def read(value: Any) -> bytes | None:
            if value is None:
                return None
            return np.frombuffer(value, ">f4", offset=4).astype(np.float32).tobytes()

        return read


def to_pgvector(connection: sa.Connection, memories: sa.Table) -> bool:
    """Turns binary vectors into pgvector's, within the caller's transaction; values are kept.

    Returns False, and changes nothing, where the database is not PostgreSQL or has no extension
    `vector` that this account may use. `memories` is the table as it is afterwards.
    """
    if connection.dialect.name != "postgresql" or not connection.scalar(_INSTALLED):
        return False
    try:
        with connection.begin_nested():
            for statement in _CHANGES:
                connection.exec_driver_sql(statement)
    except sa.exc.DBAPIError:  # not permitted
        return False
    _carry_over(connection, memories)
    connection.exec_driver_sql("ALTER TABLE memories DROP COLUMN bytes")
    return True


def _carry_over(connection: sa.Connection, memories: sa.Table) -> None:
    bytes_ = sa.column("bytes", sa.LargeBinary)
    old = sa.select(memories.c.id.label("memory"), bytes_).where(bytes_.is_not(None))
    new = memories.update().where(memories.c.id == sa.bindparam("memory"))
    new = new.values(vector=sa.bindparam("bytes"))
    streamed = connection.execute(old, execution_options={"yield_per": _CHUNK})
    for rows in streamed.mappings().partitions():
        connection.execute(new, [dict(row) for row in rows])
