"""Serves a memory over HTTP, for mem0's clients and any other: `memr1 serve`.

The key is the environment's MEMR1_API_KEY; without one only this machine is served.
"""

import argparse
import os
from collections.abc import Sequence

from memr1_jax.service.arguments import add_places, open_memory, parser, run
from memr1_jax.service.server import MOST_BYTES, check_address, create_app


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    found = parser(__doc__)
    add_places(found)
    found.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    found.add_argument("--port", type=int, default=8765, help="port (default: %(default)s)")
    found.add_argument(
        "--max-bytes", type=int, default=MOST_BYTES, help="of a request (default: %(default)s)"
    )
    run(found, _main, argv)


def _main(given: argparse.Namespace) -> None:
    key = os.environ.get("MEMR1_API_KEY", "")
    check_address(given.host, key)
    import uvicorn

    with open_memory(given) as memory:
        print("Loading the agents.", flush=True)
        _ = memory.agents
        app = create_app(memory, key, given.max_bytes)
        uvicorn.run(app, host=given.host, port=given.port, log_level="warning")
