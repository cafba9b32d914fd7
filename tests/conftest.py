"""Settings of all tests; the environment is set before a test file imports anything."""

import gc
import inspect
import math
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


# Programs are kept from file to file, as many files compile the same small ones, until a process
# has mapped this much code: beyond 65,530 pieces (on Linux) the compiler aborts.
_MOST_PIECES = 16_384


# Files that use one compiled step go to one process, and what takes longest comes first, so that
# no process is left alone with it.
_TOGETHER = {
    "agents/test_ingest.py": "banks",
    "evals/report/test_watch.py": "banks",
    "inference/test_front.py": "banks",
    "training/test_identity.py": "banks",
    "agents/test_rollout.py": "steps",
    "training/test_step.py": "steps",
    "inference/test_agents.py": "nano",
    "inference/test_readme.py": "nano",
    "inference/test_shipped_agents.py": "nano",
    "examples/test_examples.py": "nano",
}
_LONGEST = ("parallel", "training", "agents", "inference", "examples", "rl", "models")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Sends the tests of a file to one process, and those of files that share programs."""
    from xdist.scheduler import LoadScopeScheduling

    class ByProgram(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return _TOGETHER.get(file.removeprefix("tests/"), file)

    config.option.loadscopereorder = False  # the order below is kept
    return ByProgram(config, log)


def pytest_collection_modifyitems(items):
    """Puts the long tests first, those of files that share programs one after another."""
    folder = Path(__file__).parent

    def place(item):
        file = item.path.relative_to(folder)
        first = file.parts[0]
        known = _LONGEST.index(first) if first in _LONGEST else len(_LONGEST)
        return _TOGETHER.get(file.as_posix(), "~"), known

    items.sort(key=place)


def pytest_collection_finish():
    """Leaves what was imported to collect the tests out of the search for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_freed_in_time(request):
    """Frees all compiled programs where a process has mapped many pieces of code.

    The results that a file's own functions cache, which hold programs, end with the file.
    """
    yield
    import jax

    for _, value in inspect.getmembers(request.module):
        if hasattr(value, "cache_clear") and value.__module__ == request.module.__name__:
            value.cache_clear()
    if _mapped_pieces() > _MOST_PIECES:
        jax.clear_caches()
        gc.collect()


def _mapped_pieces() -> float:
    """Counts the pieces of memory that this process has mapped; without end if none can say."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return math.inf
