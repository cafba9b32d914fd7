"""Processes that are killed while they write: what was acknowledged is there, the rest is not."""

import random
import sqlite3
import subprocess
import sys
import time

from memr1_jax.service.scope import Scope
from memr1_jax.service.store import Store

WRITER = """
import sys
from memr1_jax.service.records import Entry, Here, Kind, Message, new_state
from memr1_jax.service.scope import Scope
from memr1_jax.service.store import Store
store, time = Store(sys.argv[1]), "2026-05-08T00:00:00.000000+00:00"
for number in range(10**6):
    names = [f"{sys.argv[2]}-{number}-{part}" for part in "ab"]
    entries = [
        Entry(Kind.ADD, name, None, new_state(name, "x", event_time=time, sources=[Here(0)]), time)
        for name in names
    ]
    store.write(Scope.of("all"), entries, messages=[Message("user", "x", names[0], time)])
    print(names[0][:-2], flush=True)
"""


def kill(path, rounds, seed=0):
    """Kills `rounds` writers, four at a time; returns how many writes they had acknowledged."""
    chance, acknowledged = random.Random(seed), []
    Store(path).close()
    for first in range(0, rounds, 4):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), f"w{number}"], stdout=subprocess.PIPE
            )
            for number in range(first, min(first + 4, rounds))
        ]
        for writer in writers:
            acknowledged.append(writer.stdout.readline().decode().strip())  # it is under way
        for writer in writers:
            time.sleep(chance.uniform(0, 0.1))
            writer.kill()
        for writer in writers:
            lines = writer.stdout.read().decode().split("\n")[:-1]  # the last may be cut
            acknowledged += lines
            writer.wait()
    store = Store(path)
    held = set(store.memories(Scope.of("all")))
    assert all({f"{name}-a", f"{name}-b"} <= held for name in acknowledged)  # nothing is lost
    assert all(name[:-1] + part in held for name in held for part in "ab")  # nor half there
    assert {m.content for m in store.messages(Scope.of("all"))} == {
        name for name in held if name.endswith("a")
    }
    assert len(store.events(Scope.of("all"))) == len(held)
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return len(acknowledged)


def test_writers_that_are_killed_lose_nothing(tmp_path):
    assert kill(tmp_path / "m.db", 4) >= 4
