"""Serves a memory over HTTP, for mem0's clients and any other: `memr1 serve`.

The page at / shows what is remembered and how it came about.
The key is the environment's MEMR1_API_KEY; without one only this machine is served.
"""

import argparse
import contextlib
import os
import threading
from collections.abc import Iterator, Sequence

from memr1_jax.inference.agents import Agents
from memr1_jax.service.arguments import add_places, open_memory, parser, run
from memr1_jax.service.guards import MOST_BYTES, RATE, check_address
from memr1_jax.service.server import create_app


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    found = parser(__doc__)
    add_places(found)
    found.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    found.add_argument("--port", type=int, default=8765, help="port (default: %(default)s)")
    found.add_argument(
        "--max-bytes", type=int, default=MOST_BYTES, help="of a request (default: %(default)s)"
    )
    found.add_argument(
        "--rate",
        type=_rate,
        default=RATE,
        help="requests a second of one client, 0 for any number (default: %(default)g)",
    )
    found.add_argument(
        "--warm-up",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compile for one request and for many at the start, in the background",
    )
    run(found, _main, argv)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return rate


def _main(given: argparse.Namespace) -> None:
    key = os.environ.get("MEMR1_API_KEY", "")
    check_address(given.host, key)
    import uvicorn

    with open_memory(given) as memory:
        print("Loading the agents.", flush=True)
        agents = memory.agents
        app = create_app(memory, key, given.max_bytes, given.rate)
        print(f"Queries are compared by {memory.searched_by}.", flush=True)
        print(f"The inspector is at http://{given.host}:{given.port}/.", flush=True)
        with _warming_up(agents) if given.warm_up else contextlib.nullcontext():
            uvicorn.run(app, host=given.host, port=given.port, log_level="warning")


@contextlib.contextmanager
def _warming_up(agents: Agents) -> Iterator[None]:
    """Has a thread compile the agents' programs; at the end waits for the one at work."""
    ended = threading.Event()
    thread = threading.Thread(target=agents.warm_up, args=(ended.is_set,), name="memr1 warm-up")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
