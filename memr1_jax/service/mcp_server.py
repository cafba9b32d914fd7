"""Serves a memory to assistants over the Model Context Protocol: `memr1 mcp`.

By default over standard input and output; with `--http` as streamable HTTP at /mcp.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from memr1_jax.errors import UserError
from memr1_jax.service.arguments import add_places, open_memory, parser, run
from memr1_jax.service.errors import Unknown
from memr1_jax.service.memory import Memory

_INSTRUCTIONS = (
    "A memory that outlasts the conversation. Add what the user tells about themselves, search it"
    " or ask it before you answer, and undo what was remembered wrongly."
)


def create_server(memory: Memory, user_id: str = "user") -> Any:
    """Makes the MCP server.

    Args:
      memory: what it serves.
      user_id: whose memories the tools mean where a call does not say.
    """
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp_types import ToolAnnotations
    from pydantic import Field

    server = MCPServer("memr1", instructions=_INSTRUCTIONS)
    whose = Annotated[str, Field(description="Whose memories; leave it out for the usual user.")]
    moment = Annotated[str | None, Field(description="A date: what was so by then.")]

    def tool(*, reads: bool = False, destroys: bool = False, repeats: bool = False) -> Callable:
        hints = ToolAnnotations(
            read_only_hint=reads,
            destructive_hint=destroys,
            idempotent_hint=reads or repeats,
            open_world_hint=False,
        )

        def register(function: Callable) -> Callable:
            @functools.wraps(function)
            def told(*args: Any, **kwargs: Any) -> dict[str, Any]:
                try:
                    return function(*args, **kwargs)
                except UserError as error:
                    raise ToolError(str(error)) from error

            server.add_tool(told, description=function.__doc__, annotations=hints)
            return function

        return register

    @tool()
    def add_memory(
        text: str, user_id: whose = user_id, timestamp: str | None = None
    ) -> dict[str, Any]:
        """Remembers what was said; tells what was added, updated, deleted or left alone."""
        return memory.add(text, user_id=user_id, timestamp=timestamp)

    @tool(reads=True)
    def search_memories(
        query: str, user_id: whose = user_id, top_k: int = 10, as_of: moment = None
    ) -> dict[str, Any]:
        """Finds the memories that are nearest to a query, best first."""
        return memory.search(query, user_id=user_id, top_k=top_k, as_of=as_of)

    @tool(reads=True)
    def get_memories(
        user_id: whose = user_id, top_k: int = 100, as_of: moment = None
    ) -> dict[str, Any]:
        """Lists memories, oldest first."""
        return memory.get_all(user_id=user_id, top_k=top_k, as_of=as_of)

    @tool(reads=True)
    def get_memory(memory_id: str) -> dict[str, Any]:
        """Returns one memory."""
        found = memory.get(memory_id)
        if found is None:
            raise Unknown(f"There is no memory with the id {memory_id!r}.")
        return found

    @tool(destroys=True, repeats=True)
    def update_memory(memory_id: str, text: str) -> dict[str, Any]:
        """Replaces the text of a memory."""
        return memory.update(memory_id, text)

    @tool(destroys=True)
    def delete_memory(memory_id: str) -> dict[str, Any]:
        """Deletes a memory; undo brings it back."""
        return memory.delete(memory_id)

    @tool(reads=True)
    def answer_from_memory(
        question: str, user_id: whose = user_id, as_of: moment = None
    ) -> dict[str, Any]:
        """Answers a question from what is remembered, with the memories that it rests on."""
        return memory.answer(question, user_id=user_id, as_of=as_of)

    @tool(reads=True)
    def memory_history(memory_id: str) -> dict[str, Any]:
        """Lists all that happened to a memory, its deletion included."""
        return {"results": memory.history(memory_id)}

    @tool(destroys=True)
    def undo(memory_id: str | None = None, call: str | None = None) -> dict[str, Any]:
        """Takes back the last event of a memory, or all that one add_memory did (its call)."""
        return memory.undo(memory_id, call=call)

    return server


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    found = parser(__doc__)
    add_places(found)
    found.add_argument("-u", "--user-id", default="user", help="whose memories, by default")
    found.add_argument("--http", action="store_true", help="serve streamable HTTP at /mcp")
    found.add_argument("--port", type=int, default=8766, help="of HTTP (default: %(default)s)")
    run(found, _main, argv)


def _main(given: argparse.Namespace) -> None:
    with open_memory(given) as memory:
        server = create_server(memory, given.user_id)
        if given.http:
            server.run("streamable-http", host="127.0.0.1", port=given.port)
        else:
            server.run("stdio")
