"""Shares fixtures among the tests of the models."""

import os
import sys
from pathlib import Path

import pytest

from memr1_jax.models.hf.sources import GEMMA3, smollm2_folder
from memr1_jax.models.hf.wheels import cache_folder

sys.path.append(str(Path(__file__).parent))  # for golden_models, in every import mode of pytest


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Returns the converted SmolLM2 folder: MEMR1_SMOLLM2, or the cache."""
    folder = Path(os.environ.get("MEMR1_SMOLLM2") or smollm2_folder(cache_folder()))
    if not (folder / "config.json").is_file():
        pytest.skip(f"no converted SmolLM2 in {folder}; set MEMR1_SMOLLM2")
    return folder


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Returns the converted Gemma 3 folder: MEMR1_GEMMA3, or the cache."""
    folder = Path(os.environ.get("MEMR1_GEMMA3") or cache_folder() / "models" / GEMMA3)
    if not (folder / "config.json").is_file():
        pytest.skip(f"no converted Gemma 3 in {folder}; set MEMR1_GEMMA3")
    return folder
