"""Settings of all tests; the environment is set before a test file imports anything."""

import os
import sys
from pathlib import Path

from hypothesis import settings

sys.path.append(str(Path(__file__).parent))  # shared helpers, in every import mode of pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of PyTorch, so that test processes can share cores
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

# The first example of a test compiles, which no deadline should count.
settings.register_profile("memr1_jax", deadline=None)
settings.load_profile("memr1_jax")
