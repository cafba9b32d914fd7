"""The tiny model, for tests of this folder."""

from tiny_model import tiny  # noqa: F401
