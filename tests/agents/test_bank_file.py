"""The banks that the Answer Agent learns on, kept for a resumed run."""

import random

import jax
import numpy as np
import pytest

from memr1_jax.agents.bank_file import read_banks, write_banks
from memr1_jax.agents.ingest import Ingestion
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import MemoryBank


def _ingestion():
    draw = np.random.default_rng(0)
    banks = tuple(
        MemoryBank(
            **{name: draw.integers(0, 9, (3, 4)).astype(np.int32) for name in _FIELDS},
        )
        for _ in range(2)
    )
    return Ingestion(banks, {"turns": 4.0})


_FIELDS = tuple(MemoryBank.__dataclass_fields__)


def test_no_flipped_bit_gives_other_banks(tmp_path):
    path = tmp_path / "training_banks.safetensors"
    assert read_banks(path, "manager 2") is None
    write_banks(path, _ingestion(), "manager 2")
    whole = path.read_bytes()
    assert read_banks(path, "add_all 2") is None
    draw, damaged = random.Random(0), 0
    places = [*range(0, 40), *draw.sample(range(len(whole)), 200), len(whole) - 1]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            found = read_banks(path, "manager 2")
        except UserError as error:
            assert f"{path} are damaged" in str(error) and "Remove the file" in str(error)
            damaged += 1
            continue
        if found is not None:  # None: as if another manager had made them
            jax.tree.map(np.testing.assert_array_equal, found.banks, _ingestion().banks)
            assert found.counts == {"turns": 4.0}
    assert damaged > 150
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="are damaged"):
            read_banks(path, "manager 2")
