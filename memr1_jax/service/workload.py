"""Load on a memory: a live server with many clients, large banks, and many users."""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.inference.agents import Agents
from memr1_jax.service import clock, schema
from memr1_jax.service.records import Entry, Kind, new_state
from memr1_jax.service.scope import Scope
from memr1_jax.service.store import Store

_LONGEST_START, _LONGEST_CALL = 300.0, 600.0  # seconds
_CHUNK = 1000  # memories that are written together
_PLACES = "Oslo Rome Bonn Lima Cairo Kyoto Quito Turin Perth Leeds Basel Lyon".split()
_THINGS = "boat violin garden kiln bicycle telescope oven loom kayak easel drum tent".split()


def text_of(number: int) -> str:
    """Writes a memory; each number has its own."""
    thing, place = _THINGS[number % 12], _PLACES[number // 12 % 12]
    return f"Ana bought {thing} {number} in {place} on day {number // 144}."


@contextlib.contextmanager
def server(db: str | Path, agents: str) -> Iterator[tuple[str, float, int]]:
    """Runs `memr1 serve` on a free port; yields address, seconds until it replied, process id.

    Raises:
      UserError: it ended, or did not reply in minutes.
    """
    import httpx2

    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    command = [sys.executable, "-m", "experiments", "serve", "--rate=0", f"--port={port}"]
    environment = {name: value for name, value in os.environ.items() if name != "MEMR1_API_KEY"}
    address, start = f"http://127.0.0.1:{port}", time.perf_counter()
    process = subprocess.Popen(
        [*command, f"--db={db}", f"--agents={agents}"],
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    try:
        while time.perf_counter() - start < _LONGEST_START:
            if process.poll() is not None:
                raise UserError(f"The server ended with status {process.returncode}; see above.")
            with contextlib.suppress(httpx2.TransportError):
                httpx2.get(f"{address}/health")
                break
            time.sleep(0.05)
        else:
            raise UserError(f"The server did not reply within {_LONGEST_START:.0f} s.")
        yield address, time.perf_counter() - start, process.pid
    finally:
        process.terminate()
        process.wait()


def resident(process: int) -> float:
    """Returns the MB of memory that a process holds; NaN where there is no /proc."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:
        return float("nan")
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


Request = tuple[str, dict[str, Any]]  # path and body of a POST


def ask(address: str, clients: Sequence[Sequence[Request]]) -> tuple[np.ndarray, float, int]:
    """Has clients send their requests, all clients at once, each one after another.

    Returns:
      The seconds of each request `[n]`, those of the whole, and how many failed.
    """
    import httpx2

    def client(requests: Sequence[Request]) -> list[tuple[float, bool]]:
        found = []
        with httpx2.Client(base_url=address, timeout=_LONGEST_CALL) as connection:
            for path, body in requests:
                begin = time.perf_counter()
                status = connection.post(path, json=body).status_code
                found.append((time.perf_counter() - begin, status != 200))
        return found

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        replies = [reply for replies in pool.map(client, clients) for reply in replies]
    seconds, failed = zip(*replies, strict=True)
    return np.array(seconds), time.perf_counter() - start, sum(failed)


def fill(db: str | Path, agents: Agents, user: str, count: int) -> None:
    """Writes a bank of `count` memories with their vectors, past the manager."""
    store, scope, moment = Store(db), Scope.of(user), clock.now()
    embedder = agents.digests["embedder"]
    with store.writing() as connection:
        place = store.new_scope(connection, scope, moment)
    for start in range(0, count, _CHUNK):
        texts = [text_of(number) for number in range(start, min(start + _CHUNK, count))]
        vectors = agents.vectors([agents.tokens(text) for text in texts]).astype(np.float32)
        call, memories, events = str(uuid.uuid4()), [], []
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), start):
            state = new_state(text, "user", event_time=moment, moment=moment, slot=number)
            name = str(uuid.uuid4())
            own = {"vector": vector.tobytes(), "vector_of": embedder}
            memories.append({"id": name, "scope": place, "state": state, **own})
            more = {"event_time": moment, "created_at": moment, "actor": "user", "call": call}
            event = {"memory": name, "kind": Kind.ADD.value, "after": state, "scope": place}
            events.append(event | more)
        with store.writing() as connection:
            connection.execute(store.memory_table.insert(), memories)
            connection.execute(schema.events.insert(), events)
    store.close()


def add_users(db: str | Path, count: int) -> None:
    """Writes a memory for each of `count` users."""
    store, moment = Store(db), clock.now()
    for number in range(count):
        state = new_state(text_of(number), "user", event_time=moment, slot=0)
        entry = Entry(Kind.ADD, str(uuid.uuid4()), None, state, moment)
        store.write(Scope.of(f"user-{number}"), [entry])
    store.close()
