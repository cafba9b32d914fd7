"""Keeps replies of language models on disk, so that a stopped run resumes where it was."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax.numpy as jnp

from memr1_jax.bench.systems.protocol import Reply
from memr1_jax.errors import UserError
from memr1_jax.models.hf.folders import folder_digest
from memr1_jax.run.files import cannot_write

_FIELDS = ("text", "prompt_tokens", "tokens", "stopped", "seconds", "cut")


class ReplyCache:
    """Replies by key in a SQLite file; what was put is kept even if the process is killed."""

    def __init__(self, path: str | os.PathLike):
        """Opens or makes the file; UserError where it is no such file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._connection = sqlite3.connect(path)
        except sqlite3.Error as error:
            raise cannot_write(path, error) from error
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, text TEXT,"
                " prompt_tokens INTEGER, tokens INTEGER, stopped INTEGER, seconds REAL,"
                " cut INTEGER) WITHOUT ROWID"
            )
            (said,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(said.splitlines()[-1])
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise self._failed(error) from error

    def get(self, keys: Iterable[str]) -> dict[str, Reply]:
        """Returns the replies that are there."""
        columns = ", ".join(_FIELDS)
        found = {}
        for key in dict.fromkeys(keys):
            try:
                row = self._connection.execute(
                    f"SELECT {columns} FROM replies WHERE key = ?", (key,)
                ).fetchone()
            except sqlite3.Error as error:
                raise self._failed(error) from error
            if row:
                values = dict(zip(_FIELDS, row, strict=True))
                found[key] = Reply(**values | {"stopped": bool(values["stopped"])})
        return found

    def put(self, replies: Mapping[str, Reply]) -> None:
        """Stores all of them, or none where the process dies meanwhile."""
        marks = ", ".join("?" * (1 + len(_FIELDS)))
        rows = [(key, *(getattr(r, name) for name in _FIELDS)) for key, r in replies.items()]
        try:
            with self._connection:
                self._connection.executemany(
                    f"INSERT OR REPLACE INTO replies VALUES ({marks})", rows
                )
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> UserError:
        """Tells what is wrong: the disk, another process, or the file itself."""
        if isinstance(error, sqlite3.OperationalError):  # not the contents
            return cannot_write(self.path, error)
        return UserError(
            f"{self.path} is no cache of replies ({error}). Move it away; a new one is made."
        )

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


def reply_key(model: str, prompt: Iterable[int], max_tokens: int, schema: str, ids: int) -> str:
    """Digests all that a greedy reply depends on; `model` is a `model_digest`."""
    return _digest(json.dumps([model, list(prompt), max_tokens, schema, ids]).encode())


def model_digest(folder: str | os.PathLike, dtype) -> str:
    """Digests the weights and the tokenizer of a model folder that is used in `dtype`."""
    return folder_digest(folder, str(jnp.dtype(dtype)))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
