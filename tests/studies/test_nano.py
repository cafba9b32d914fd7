"""Makes a small nano model; checks that the shipped one matches the recipe."""

import dataclasses
import json
import math

import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.studies import nano
from memr1_jax.studies.ablation_cells import AblationsConfig
from memr1_jax.studies.learning import LearningConfig
from memr1_jax.studies.nano import NANO, NanoConfig, make_nano, tokenizer_texts

SHAPE = dataclasses.replace(NANO, num_layers=1, model_width=32, head_size=8, mlp_width=32)
SMALL = {
    **{"clean_steps": 6, "flawed_steps": 3, "dialogues": 6, "flawed_dialogues": 4},
    **{"test_dialogues": 3, "batch": 4},
}


def test_steps_without_any_are_refused(tmp_path):
    with pytest.raises(UserError, match="--clean_steps=0 must be at least 1"):
        make_nano(NanoConfig(output=str(tmp_path), clean_steps=0))


def test_the_tokenizer_knows_the_form_of_operations():
    texts = list(tokenizer_texts())
    assert any(text.startswith('{"op": "UPDATE", "id": 0, "text": "') for text in texts)
    assert any(" **Answer:** " in text for text in texts)


def test_the_package_ships_the_model_and_it_is_small():
    folder = resolve_model("nano")
    config = json.loads((folder / "config.json").read_text())
    assert config["hidden_size"] == NANO.model_width and config["vocab_size"] == NANO.vocab_size
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10e6


def test_no_comparison_is_made_on_dialogues_that_were_demonstrated():
    options = NanoConfig()
    counts = (options.test_dialogues, options.dialogues, options.flawed_dialogues)
    last = options.seed + 1 + sum(math.ceil(count / nano._AT_ONCE) for count in counts)
    assert last < min(LearningConfig().seed, AblationsConfig().seed)


@pytest.mark.slow
def test_the_same_seed_makes_the_same_model(tmp_path):
    from safetensors.numpy import load_file

    made = [
        make_nano(NanoConfig(output=str(tmp_path / name), seed=seed, **SMALL), SHAPE)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    first, again, other = (load_file(folder / "model.safetensors") for folder in made)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["equal_to_gold"].keys() == {"clean", "flawed"}
    assert (made[0] / "tokenizer.json").read_bytes() == (made[1] / "tokenizer.json").read_bytes()
