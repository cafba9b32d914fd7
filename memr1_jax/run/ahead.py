"""Compiles train steps in threads of their own, while banks are built and other agents learn."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


class AheadCompiler:
    """Compiles programs ahead of their first call; a context that ends with its threads.

    Tracing takes turns with the main thread, compiling and reading a kept program do not.
    """

    def __init__(self, threads: int = 2):
        """Starts no thread yet."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="compile")
        self._programs: dict[str, Future] = {}

    def __enter__(self) -> "AheadCompiler":
        """Returns itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Drops programs that were not begun, and waits for the others."""
        self._pool.shutdown(cancel_futures=True)

    def start(self, name: str, function: Callable, *arguments: Any) -> None:
        """Begins to compile a jitted function for arguments like these, arrays or shapes."""
        shapes = jax.eval_shape(lambda *arguments: arguments, *arguments)
        self._programs[name] = self._pool.submit(lambda: function.lower(*shapes).compile())

    def take(self, name: str, otherwise: Callable) -> Callable:
        """Returns the program of this name, once it is ready; without one, `otherwise`."""
        program = self._programs.pop(name, None)
        return otherwise if program is None else program.result()
