"""The tiny model, for tests of this folder, and no cache of compiled programs left behind."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from tiny_model import tiny  # noqa: F401


@pytest.fixture(autouse=True)
def _no_cache_outlives_its_test():
    """A comparison names its folder as the place of the cache, for the whole process."""
    before = jax.config.jax_compilation_cache_dir
    yield
    if jax.config.jax_compilation_cache_dir != before:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()
