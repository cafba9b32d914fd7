"""Mistakes of a caller of the memory interface; ValueErrors too, as mem0's callers expect."""

from memr1_jax.errors import UserError


class Refused(UserError, ValueError):
    """A request that cannot be carried out, told in whole sentences."""


class Unknown(Refused):
    """A request that names something that does not exist."""
