"""Kills processes while they write to a database, and checks what is left."""

import dataclasses
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from memr1_jax.service.scope import Scope
from memr1_jax.service.store import Store

_TOGETHER = 4  # writers
_LONGEST = 0.1  # seconds until a kill
_WRITER = """
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


@dataclasses.dataclass(frozen=True)
class Left:
    """Counts what kills left of writes, each of a message and two memories.

    `lost` were acknowledged and are not there; of `half` a part is there; `integrity` is what
    SQLite says of the file.
    """

    kills: int
    acknowledged: int
    lost: int
    half: int
    integrity: str


def kill_writers(path: str | Path, kills: int, seed: int = 0) -> Left:
    """Starts writers, four at a time, and kills each at a random moment while it writes."""
    chance, acknowledged = random.Random(seed), []
    Store(path).close()
    for first in range(0, kills, _TOGETHER):
        names = [f"w{number}" for number in range(first, min(first + _TOGETHER, kills))]
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(path), name], stdout=subprocess.PIPE
            )
            for name in names
        ]
        for writer in writers:
            acknowledged.append(writer.stdout.readline().decode().strip())  # it is under way
        for writer in writers:
            time.sleep(chance.uniform(0, _LONGEST))
            writer.kill()
        for writer in writers:
            acknowledged += writer.stdout.read().decode().split("\n")[:-1]  # the last may be cut
            writer.wait()
    store, scope = Store(path), Scope.of("all")
    memories, events = set(store.memories(scope)), [e.memory for e in store.events(scope)]
    messages = {message.content for message in store.messages(scope)}
    store.close()
    written = {name[:-2] for name in (*memories, *messages, *events)}
    whole = {
        name
        for name in written
        if {f"{name}-a", f"{name}-b"} <= memories
        and f"{name}-a" in messages
        and events.count(f"{name}-a") == events.count(f"{name}-b") == 1
    }
    with sqlite3.connect(path) as connection:
        ((integrity,), *_) = connection.execute("PRAGMA integrity_check").fetchall()
    lost = len(set(acknowledged) - whole)
    return Left(kills, len(acknowledged), lost, len(written - whole), integrity)
