"""Settings of all tests; the environment is set before a test file imports anything."""

import gc
import inspect
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.append(str(Path(__file__).parent))  # shared helpers, in every import mode of pytest

import quick_compile  # noqa: E402

quick_compile.use()

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of PyTorch, so that test processes can share cores
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from tiny_model import tiny  # noqa: E402, F401

# The first example of a test compiles, which no deadline should count.
settings.register_profile("memr1_jax", deadline=None)
settings.load_profile("memr1_jax")


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_end_with_their_file(request):
    """Frees what a file compiled: a process may map only so many pieces of code (65,530 on Linux).

    Beyond that the compiler aborts. The results that the file's own functions cache hold programs.
    """
    yield
    import jax

    for _, value in inspect.getmembers(request.module):
        if hasattr(value, "cache_clear") and value.__module__ == request.module.__name__:
            value.cache_clear()
    jax.clear_caches()
    gc.collect()
