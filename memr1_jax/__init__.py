"""Memory-R1 in JAX: language-model agents that learn to manage their own memory."""

__version__ = "0.1.0"
