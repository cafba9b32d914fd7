"""The two memory tools of LangMem's shape, for LangGraph or any other framework of tools.

Both are plain functions with types and docstrings, from which frameworks make schemas:
`create_react_agent(model, tools=[create_manage_memory_tool(memory, "ana"), ...])`.
"""

import json
from collections.abc import Callable
from typing import Any, Literal

from memr1_jax.service.memory import Memory


def create_manage_memory_tool(memory: Memory, user_id: str) -> Callable[..., str]:
    """Returns a tool that creates, updates and deletes memories of a user."""

    def manage_memory(
        content: str | None = None,
        action: Literal["create", "update", "delete"] = "create",
        *,
        id: str | None = None,
    ) -> str:
        """Create, update or delete what is remembered across conversations.

        Create with the content alone; the memory manager decides what to keep, to change or to
        drop. Update and delete name the id of a memory that a search has shown.
        """
        if (action == "create") == (id is not None):
            raise ValueError("Give an id to update or delete, and none to create.")
        if action == "create":
            results = memory.add(content, user_id=user_id)["results"]
            return "\n".join(f"{one['event']} {one['id']}: {one['memory']}" for one in results)
        found = memory.get(id)
        if found is None or found.get("user_id") != user_id:
            raise ValueError(f"There is no memory with the id {id!r}.")
        if action == "update":
            memory.update(id, content)
        else:
            memory.delete(id)
        return f"{action}d memory {id}"

    return manage_memory


def create_search_memory_tool(memory: Memory, user_id: str) -> Callable[..., str]:
    """Returns a tool that searches the memories of a user."""

    def search_memory(
        query: str, *, limit: int = 10, offset: int = 0, filter: dict[str, Any] | None = None
    ) -> str:
        """Search what is remembered across conversations; best matches first, as JSON."""
        filters = {"user_id": user_id, **({"AND": [filter]} if filter else {})}
        found = memory.search(query, filters=filters, top_k=limit + offset)["results"]
        return json.dumps(found[offset:], ensure_ascii=False)

    return search_memory
