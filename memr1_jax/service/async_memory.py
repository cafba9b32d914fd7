"""`AsyncMemory`: the methods of `Memory` as coroutines."""

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any

from memr1_jax.service.memory import Memory

_CALLS = frozenset(
    ("add", "search", "get_all", "get", "update", "delete", "delete_all", "history", "reset")
    + ("answer", "undo", "retry", "diff", "stats", "chat", "close")
)


class AsyncMemory:
    """`Memory` for coroutines: each call waits in a thread, and all of them share the agents."""

    def __init__(self, *args: Any, **kwargs: Any):
        """Opens the database; the arguments are those of `Memory`."""
        self.memory = Memory(*args, **kwargs)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "AsyncMemory":
        """Makes a memory from a dictionary of the arguments, `agents` and `db` among them."""
        return cls(**config)

    async def __aenter__(self) -> "AsyncMemory":
        """Returns itself."""
        return self

    async def __aexit__(self, *_: Any) -> None:
        """Closes it."""
        await self.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Returns the coroutine function for a method of `Memory`."""
        if name not in _CALLS:
            raise AttributeError(f"AsyncMemory has no {name!r}.")
        method = getattr(self.memory, name)

        @functools.wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call
