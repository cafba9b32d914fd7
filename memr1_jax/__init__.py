"""Memory-R1 in JAX: language-model agents that learn to manage their own memory.

import memr1_jax as m1
agents = m1.load("nano")
memories = agents.remember([("Ana", "I live in Oslo."), ("Ana", "I moved to Bergen.")])
print(memories)
print(agents.answer("Where does Ana live?", memories))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memr1_jax.errors import UserError
    from memr1_jax.inference.agents import Agents
    from memr1_jax.inference.loading import load
    from memr1_jax.inference.memories import Memories, Memory
    from memr1_jax.inference.runs import Run, train
    from memr1_jax.training.config import ExperimentConfig as Config

__version__ = "0.1.0"
__all__ = ["Agents", "Config", "Memories", "Memory", "Run", "UserError", "load", "train"]

# Imported on first use: `import memr1_jax` alone must not wait for JAX.
_HOMES = {
    "Agents": ("memr1_jax.inference.agents", "Agents"),
    "Config": ("memr1_jax.training.config", "ExperimentConfig"),
    "Memories": ("memr1_jax.inference.memories", "Memories"),
    "Memory": ("memr1_jax.inference.memories", "Memory"),
    "Run": ("memr1_jax.inference.runs", "Run"),
    "UserError": ("memr1_jax.errors", "UserError"),
    "load": ("memr1_jax.inference.loading", "load"),
    "train": ("memr1_jax.inference.runs", "train"),
}


def __getattr__(name: str) -> Any:
    """Imports a name of the public interface when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public interface."""
    return sorted([*globals(), *_HOMES])
