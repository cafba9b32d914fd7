"""Adapters from and to folders of peft, and what peft and transformers compute with them."""

import dataclasses
import itertools
import json
from functools import partial

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_decoder import CONFIG, FAMILY_CONFIGS, random_params

from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.hf.hf_weights import export_params
from memr1_jax.models.hf.peft import export_adapters, load_adapters
from memr1_jax.models.lora import TARGETS, LoRA, abstract_adapters, join, merge

LORA = LoRA(rank=3, alpha=6.0)
IDS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, 12)
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def random_adapters(config=CONFIG, lora=LORA, dtype=np.float32):
    rng = np.random.default_rng(1)
    shapes = abstract_adapters(config, lora)
    return jax.tree.map(lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(dtype), shapes)


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.fixture
def folder(tmp_path):
    return export_adapters(tmp_path / "adapters", random_adapters(), LORA, CONFIG, "a/base")


def change(folder, tensors=None, **settings):
    """Changes settings, and tensors (None takes one out), of a folder."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    path = folder / "adapter_model.safetensors"
    new = load_file(path) | (tensors or {})
    save_file({name: tensor for name, tensor in new.items() if tensor is not None}, path)


def test_round_trip_of_every_subset_of_targets(tmp_path):
    for count in range(1, len(TARGETS) + 1):
        for targets in itertools.combinations(TARGETS, count):
            lora = dataclasses.replace(LORA, targets=targets)
            adapters = random_adapters(lora=lora)
            export_adapters(tmp_path / "adapters", adapters, lora, CONFIG, "a/base")
            loaded, read = load_adapters(tmp_path / "adapters", CONFIG)
            assert read == lora
            assert_same(loaded, adapters)
    assert [path.name for path in tmp_path.iterdir()] == ["adapters"]


def test_factors_are_transposed_and_heads_flattened(folder):
    layers, tensors = random_adapters()["layers"], load_file(folder / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.1."
    query, output = layers["attention"]["query"], layers["attention"]["output"]
    found = tensors[f"{prefix}self_attn.q_proj.lora_B.weight"]  # [N * H, r]
    np.testing.assert_array_equal(query["lora_b"][1, 2, 3, 5], found[3 * CONFIG.head_size + 5, 2])
    found = tensors[f"{prefix}self_attn.o_proj.lora_A.weight"]  # [r, N * H]
    np.testing.assert_array_equal(output["lora_a"][1, 3, 5, 2], found[2, 3 * CONFIG.head_size + 5])
    found = tensors[f"{prefix}mlp.down_proj.lora_B.weight"]  # [D, r]
    np.testing.assert_array_equal(layers["mlp"]["down"]["lora_b"][1].T, found)
    assert len(tensors) == 2 * 7 * CONFIG.num_layers
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("float32")}


def test_settings_are_those_of_peft(folder):
    settings = json.loads((folder / "adapter_config.json").read_text())
    expected = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "a/base",
        "r": 3,
        "lora_alpha": 6,
        "bias": "none",
    }
    assert settings.items() >= expected.items()
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert settings["target_modules"] == modules


def test_device_arrays_and_half_precision_become_float32(tmp_path):
    adapters = jax.device_put(random_adapters(dtype=jax.numpy.bfloat16))
    export_adapters(tmp_path / "adapters", adapters, LORA, CONFIG, "base")
    loaded, _ = load_adapters(tmp_path / "adapters", CONFIG)
    assert_same(loaded, jax.tree.map(lambda x: np.asarray(x, np.float32), adapters))
    path = tmp_path / "adapters" / "adapter_model.safetensors"
    tensors = load_file(path)
    for dtype in (jax.numpy.bfloat16, np.float16):
        save_file({name: tensor.astype(dtype) for name, tensor in tensors.items()}, path)
        half, _ = load_adapters(tmp_path / "adapters", CONFIG)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-3), half, loaded)
        assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {np.dtype("float32")}


def test_adapters_of_another_config_are_not_written(tmp_path):
    for lora in (LoRA(4, 6.0), LoRA(3, 6.0, ("query",))):
        with pytest.raises(ValueError, match="do not fit"):
            export_adapters(tmp_path / "adapters", random_adapters(), lora, CONFIG, "base")
    assert not list(tmp_path.iterdir())


def test_a_model_is_not_replaced_by_adapters(tmp_path):
    export_params(tmp_path / "model", random_params(CONFIG), CONFIG)
    with pytest.raises(UserError, match="no adapter_config.json"):
        export_adapters(tmp_path / "model", random_adapters(), LORA, CONFIG, "base")
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 2}},
        {"layers_to_transform": [0]},
        {"fan_in_fan_out": True},
        {"some_later_invention": {"strength": 1}},
        {"init_lora_weights": "pissa"},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ".*proj"},
        {"peft_type": "IA3"},
        {"r": None},
        {"r": True},
        {"r": 10**9},
        {"lora_alpha": "16"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_unsupported_settings_are_refused(folder, settings):
    change(folder, **settings)
    with pytest.raises(UserError, match=f"adapter_config.json.*{next(iter(settings))}"):
        load_adapters(folder, CONFIG)


def test_wrong_tensors_are_refused(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    change(folder, {FIRST: None})
    with pytest.raises(UserError, match=f"lacks tensor {FIRST}"):
        load_adapters(folder, CONFIG)
    change(folder, {FIRST: weights[FIRST][:, :-1].copy()})
    with pytest.raises(UserError, match=rf"{FIRST} has shape \[3, 31\].*ask for \[3, 32\]"):
        load_adapters(folder, CONFIG)
    change(folder, {FIRST: weights[FIRST], "base_model.model.lm_head.lora_A.weight": np.ones(1)})
    with pytest.raises(UserError, match="unexpected tensor base_model.model.lm_head"):
        load_adapters(folder, CONFIG)
    change(folder, {"base_model.model.lm_head.lora_A.weight": None, FIRST: weights[FIRST] > 0})
    with pytest.raises(UserError, match=f"tensor {FIRST} is stored as BOOL"):
        load_adapters(folder, CONFIG)


def test_broken_folders_are_refused(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_adapters(folder, CONFIG)
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        load_adapters(folder, CONFIG)
    with pytest.raises(UserError, match="adapter_config.json cannot be read"):
        load_adapters(folder / "nowhere", CONFIG)


def our_logits(config, params):
    def run(module):
        return module.logits(module((Block(IDS, np.int32(len(IDS))),))[0])

    return np.asarray(Decoder(config).apply({"params": params}, method=run))


def their_logits(model):
    import torch

    with torch.no_grad():
        return model.eval()(torch.from_numpy(IDS)[None]).logits[0].numpy()


@pytest.mark.parametrize("targets", [TARGETS, ("value", "down")], ids=["all", "two"])
@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_peft_and_transformers_compute_the_same(family, targets, tmp_path):
    pytest.importorskip("torch", reason="torch computes the reference")
    peft = pytest.importorskip("peft", reason="peft applies the adapters")
    from transformers import AutoModelForCausalLM

    config = FAMILY_CONFIGS[family]
    lora = dataclasses.replace(LORA, targets=targets)
    params = jax.tree.map(lambda x: 0.5 * np.asarray(x), random_params(config))
    adapters = random_adapters(config, lora)
    base = export_params(tmp_path / "base", params, config)
    folder = export_adapters(tmp_path / "adapters", adapters, lora, config, str(base))
    merged = merge(params, adapters, lora.scale)
    plain = export_params(tmp_path / "merged", merged, config)

    ours = our_logits(config, join(params, adapters, lora.scale))
    compare = partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    compare(our_logits(config, merged), ours)
    model = AutoModelForCausalLM.from_pretrained(base)
    assert model.config.model_type == family
    assert np.abs(their_logits(model) - ours).max() > 0.1
    model = peft.PeftModel.from_pretrained(model, folder)
    compare(their_logits(model), ours)
    compare(their_logits(AutoModelForCausalLM.from_pretrained(plain)), ours)

    model.save_pretrained(tmp_path / "theirs")
    loaded, read = load_adapters(tmp_path / "theirs", config)
    assert read == lora
    assert_same(loaded, adapters)
