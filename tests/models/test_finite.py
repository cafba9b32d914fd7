"""Weights that are not numbers are neither exported nor loaded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_model import CONFIG, random_params, tiny_folder, write_model

from memr1_jax.errors import UserError
from memr1_jax.models.finite import check_finite
from memr1_jax.models.hf.hf_weights import export_params
from memr1_jax.models.hf.peft import export_adapters
from memr1_jax.models.loading import load_model
from memr1_jax.models.lora import TARGETS, LoRA, init_adapters


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("put", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_value_is_enough(value, put, dtype):
    params = {"a": put(np.zeros((3, 4), dtype)), "b": {"c": put(np.ones(5, dtype))}}
    check_finite(params, "The model", "Do so.")
    broken = np.ones(5, dtype)
    broken[3] = value
    params["b"]["c"] = put(broken)
    with pytest.raises(UserError, match="^The model: 1 of 2 arrays .*such as b/c. Do so.$"):
        check_finite(params, "The model", "Do so.")


def test_they_are_not_exported_and_the_old_folder_stays(tmp_path):
    folder = write_model(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), random_params())
    with pytest.raises(UserError, match=f"{folder} is not written: .* NaN or infinity"):
        export_params(folder, broken, CONFIG, tokenizer_folder=tiny_folder())
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_adapters_are_not_exported_either(tmp_path):
    lora = LoRA(2, 4.0, tuple(TARGETS))
    adapters = jax.device_get(init_adapters(CONFIG, lora, jax.random.key(0)))
    path, leaf = jax.tree_util.tree_leaves_with_path(adapters)[0]
    leaf = np.array(leaf)
    leaf.flat[0] = np.inf
    broken = jax.tree_util.tree_map_with_path(lambda p, x: leaf if p == path else x, adapters)
    with pytest.raises(UserError, match="NaN or infinity"):
        export_adapters(tmp_path / "adapter", broken, lora, CONFIG, "base")
    assert not (tmp_path / "adapter").exists()


def test_they_are_not_loaded(tmp_path):
    folder = write_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name].copy()
    weights[name][3, 5] = np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"The model in {folder}: 1 of .* NaN or infinity"):
        load_model(str(folder))
