"""Embedders in files: of every kind, and damaged ones."""

import json

import jax
import numpy as np
import pytest
from tiny_model import make_tiny

from memr1_jax.errors import UserError
from memr1_jax.memory.embedder import StaticVectors, concatenate_embedders
from memr1_jax.memory.embedder_file import read_embedder, write_embedder


def _embedders():
    words = jax.tree.map(np.asarray, make_tiny().pair.tools.embedder)
    vectors = StaticVectors(
        **{name: np.ones((8, 4), np.float32) for name in StaticVectors.__dataclass_fields__}
    )
    return [words, vectors, concatenate_embedders(words, vectors, 0.5)]


@pytest.mark.parametrize("kind", range(3))
def test_an_embedder_is_read_as_it_was_written(tmp_path, kind):
    embedder = _embedders()[kind]
    write_embedder(tmp_path / "words", embedder)
    found = read_embedder(tmp_path / "words")
    jax.tree.map(np.testing.assert_array_equal, found, embedder)
    assert jax.tree.structure(found) == jax.tree.structure(embedder)


@pytest.mark.parametrize("structure", ["[]", "{}", "null", "[" * 100_000, '{"kind": []}', "3"])
def test_a_damaged_structure_is_refused_in_a_sentence(tmp_path, structure):
    from safetensors.numpy import save_file

    save_file({"x": np.ones(1)}, tmp_path / "words", metadata={"embedder": structure})
    with pytest.raises(UserError, match="does not hold the word statistics of a run"):
        read_embedder(tmp_path / "words")
    parts = {"kind": "HashedWords", "static": [], "parts": json.loads("[]")}
    save_file({"x": np.ones(1)}, tmp_path / "words", metadata={"embedder": json.dumps(parts)})
    with pytest.raises(UserError, match="does not hold the word statistics of a run"):
        read_embedder(tmp_path / "words")
