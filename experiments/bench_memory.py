"""Measures the memory service under load: adds, searches, answers, large banks, kills.

    python -m experiments.bench_memory --agents=nano

Everything is measured on servers and databases of its own, which are deleted afterwards, except for
what is written to `--db`. Clients and server share the machine.
"""

import dataclasses
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.command_line import run
from memr1_jax.options import at_least, option
from memr1_jax.run.progress import table

_COLUMNS = ("what", "requests", "failed", "a second", "p50 ms", "p95 ms")


@dataclasses.dataclass(frozen=True)
class BenchMemoryConfig:
    """Set what is measured, and how much of it."""

    agents: str = option("nano", "Run folder, model, or nano.")
    clients: int = option(32, "Clients that ask at once; 0: leave this out.", within=at_least(0))
    requests: int = option(4, "Requests of each client, of each kind.", within=at_least(1))
    memories: int = option(
        100_000, "Memories of one user that are searched; 0: leave this out.", within=at_least(0)
    )
    db: str = option("", "URL of a PostgreSQL database for these; a file of its own by default.")
    searches: int = option(200, "Searches of these.", within=at_least(1))
    users: int = option(
        1000,
        "Users of the database that a server starts with; 0: leave this out.",
        within=at_least(0),
    )
    kills: int = option(50, "Writers that are killed; 0: leave this out.", within=at_least(0))


def bench_clients(options: BenchMemoryConfig, folder: Path) -> None:
    """Compares adds of one client with those of many at once; times searches and answers."""
    from memr1_jax.service.workload import ask, server, text_of

    def requests(path: str, user: str, count: int):
        bodies = {
            "/memories": lambda i: {"messages": text_of(i)},
            "/search": lambda i: {"query": text_of(i)},
            "/answer": lambda i: {"query": f"Where did Ana buy {text_of(i).split()[2]} {i}?"},
        }
        return [(path, {**bodies[path](i), "user_id": user}) for i in range(count)]

    def many(path: str, name: str):
        return [
            requests(path, f"{name}{number}", options.requests) for number in range(options.clients)
        ]

    with server(folder / "clients.db", options.agents) as (address, _, _):
        begin = time.perf_counter()
        for path in ("/memories", "/answer"):  # compiles the programs for one and for many
            ask(address, many(path, "warm"))
            ask(address, [requests(path, f"{path[1:]}-alone", 2)])
        print(f"The programs were compiled or loaded in {time.perf_counter() - begin:.1f} s.")
        alone = ask(address, [requests("/memories", "alone", options.clients)])
        together = {
            path: ask(address, many(path, "u")) for path in ("/memories", "/search", "/answer")
        }
    rows = [_row("add, one client", alone)]
    rows += [
        _row(f"{name}, {options.clients} clients", together[path])
        for path, name in (("/memories", "add"), ("/search", "search"), ("/answer", "answer"))
    ]
    table("Requests over HTTP", _COLUMNS, rows)
    print(f"Together adds are {rows[1][3] / rows[0][3]:.1f} times as fast as one by one.")


def bench_search(options: BenchMemoryConfig, folder: Path) -> None:
    """Times searches of a large bank by a server that has just started, and answers from it."""
    from memr1_jax.service.memory import Memory
    from memr1_jax.service.workload import ask, fill, resident, server, text_of

    db, user = options.db or folder / "search.db", f"user-{uuid.uuid4()}"
    with Memory(options.agents, db=db) as memory:
        fill(db, memory.agents, user, options.memories)
        way = memory.searched_by
    numbers = np.random.default_rng(0).integers(options.memories, size=options.searches + 1)

    def bodies(texts):
        return [{"query": text, "user_id": user} for text in texts]

    with server(db, options.agents) as (address, _, process):
        sizes = [resident(process)]
        searches = [("/search", body) for body in bodies(map(text_of, numbers))]
        rows = [_row("first search", ask(address, [searches[:1]]))]
        rows.append(_row("search", ask(address, [searches[1:]])))
        sizes.append(resident(process))
        texts = [f"Where is {text_of(number).split()[2]}?" for number in numbers]
        answers = [("/answer", body) for body in bodies(texts[: options.searches // 5 + 2])]
        rows.append(_row("first answer", ask(address, [answers[:1]])))
        rows.append(_row("answer", ask(address, [answers[1:]])))
    table(f"{options.memories:,} memories of one user, by {way}", _COLUMNS, rows)
    print("The server held {:.0f} MB at first, {:.0f} MB after the searches.".format(*sizes))


def bench_start(options: BenchMemoryConfig, folder: Path) -> None:
    """Times two starts of a server whose database has many users, and an add to each."""
    from memr1_jax.service.workload import add_users, ask, server

    add_users(folder / "start.db", options.users)
    rows = []
    for start in ("first", "second"):
        with server(folder / "start.db", options.agents) as (address, seconds, _):
            body = {"messages": "Ana bought a boat.", "user_id": "user-0"}
            _, added, failed = ask(address, [[("/memories", body)]])
        rows.append((start, seconds, added, failed))
    columns = ("start", "s until it replies", "s of the first add", "failed")
    table(f"A server with {options.users:,} users", columns, rows)


def bench_kills(options: BenchMemoryConfig, folder: Path) -> None:
    """Kills writers at random moments."""
    from memr1_jax.service.kills import kill_writers

    left = dataclasses.asdict(kill_writers(folder / "kills.db", options.kills))
    table("Writers that were killed, four at a time", tuple(left), [tuple(left.values())])


def _row(what: str, found: tuple[np.ndarray, float, int]) -> tuple:
    seconds, whole, failed = found
    p50, p95 = np.percentile(1e3 * seconds, [50, 95])
    return what, len(seconds), failed, len(seconds) / whole, float(p50), float(p95)


def main(options: BenchMemoryConfig) -> None:
    """Measures what the options ask for."""
    parts = (
        (options.kills, bench_kills),
        (options.users, bench_start),
        (options.clients, bench_clients),
        (options.memories, bench_search),
    )
    with tempfile.TemporaryDirectory() as folder:
        for wanted, part in parts:
            if wanted:
                part(options, Path(folder))


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(BenchMemoryConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
