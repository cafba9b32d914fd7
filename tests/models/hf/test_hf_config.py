"""Configurations from and to Hugging Face's terms."""

import golden_models
import pytest

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import PRESETS, RopeScaling
from memr1_jax.models.hf.hf_config import config_from_hf, config_to_hf, read_config

LLAMA = golden_models.CONFIGS["llama_scaled"]
QWEN = golden_models.CONFIGS["qwen2_biased"]
MISTRAL = golden_models.CONFIGS["mistral_window"]
SMOLLM3 = golden_models.CONFIGS["smollm3"]
GEMMA = golden_models.CONFIGS["gemma3"]


def test_reads_the_older_keys():
    config = config_from_hf(LLAMA)
    assert config.rope_theta == 500_000.0
    assert config.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)
    assert (config.num_heads, config.num_kv_heads, config.head_size) == (4, 2, 64)
    assert not config.tie_embeddings and not config.family.qkv_bias


def test_reads_the_newer_keys():
    hf = dict(LLAMA)
    rope = hf.pop("rope_scaling") | {"rope_theta": hf.pop("rope_theta")}
    assert config_from_hf(hf | {"rope_parameters": rope}) == config_from_hf(LLAMA)


def test_qwen2_has_biases_and_derives_the_head_size():
    config = config_from_hf(QWEN)
    assert config.family.qkv_bias and config.head_size == 16 and config.rms_epsilon == 1e-6


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip(name):
    assert config_from_hf(config_to_hf(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize(
    "name",
    ["llama-3.2-1b", "qwen2.5-7b", "qwen3-4b", "smollm3-3b", "gemma-3-4b", "mistral-7b-v0.3"],
)
def test_transformers_reads_the_same(name):
    transformers = pytest.importorskip("transformers")
    preset = PRESETS[name]
    hf = config_to_hf(preset, "bfloat16")
    parsed = transformers.AutoConfig.for_model(hf.pop("model_type"), **hf)
    rope = parsed.rope_parameters
    assert rope.get("full_attention", rope)["rope_theta"] == preset.rope_theta
    assert parsed.hidden_size == preset.model_width
    assert "bfloat16" in str(parsed.dtype)
    assert config_from_hf(parsed.to_dict()) == preset


def test_gemma_4b_as_published_is_the_preset():
    """Reads a model with vision, whose config.json leaves much to the defaults of its class."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10_240}
    text |= {"num_hidden_layers": 34, "sliding_window": 1024}
    text |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    hf = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}}
    assert config_from_hf(hf) == PRESETS["gemma-3-4b"]


@pytest.mark.parametrize(
    ("base", "change", "kinds", "window"),
    [
        (QWEN, {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 9}, "fs", 9),
        (QWEN, {"use_sliding_window": True}, "", None),  # from layer 28 on
        (QWEN, {"sliding_window": 9, "max_window_layers": 0}, "", None),
        (MISTRAL, {}, "ss", 7),
        (MISTRAL, {"sliding_window": None}, "", None),
        (GEMMA, {}, "sf", 8),
        (GEMMA, {"layer_types": ["full_attention", "sliding_attention"]}, "fs", 8),
        (SMOLLM3, {}, "fn", None),
        (SMOLLM3, {"no_rope_layers": None, "no_rope_layer_interval": 1}, "nn", None),
    ],
)
def test_kinds_of_layers(base, change, kinds, window):
    config = config_from_hf(base | change)
    assert [kind[0] for kind in config.layer_kinds] == list(kinds)
    assert config.window == window
    assert config_from_hf(config_to_hf(config)) == config


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (LLAMA, {"model_type": "gemma"}),
        (LLAMA, {"attention_bias": True}),
        (LLAMA, {"mlp_bias": True}),
        (LLAMA, {"hidden_act": "gelu"}),
        (LLAMA, {"rope_interleaved": True}),
        (LLAMA, {"quantization_config": {"bits": 4}}),
        (LLAMA, {"num_key_value_heads": 3}),
        (LLAMA, {"use_sliding_window": True}),
        (GEMMA, {"attn_logit_softcapping": 50.0}),
        (GEMMA, {"final_logit_softcapping": 30.0}),
        (GEMMA, {"use_bidirectional_attention": True}),
        (GEMMA, {"hidden_activation": "gelu"}),
        (GEMMA, {"layer_types": ["full_attention"]}),
        (SMOLLM3, {"no_rope_layers": [1]}),
        (SMOLLM3, {"no_rope_layers": [1, 2]}),
        (SMOLLM3, {"use_sliding_window": True}),
        (QWEN, {"layer_types": ["full_attention", "sliding_attention"]}),
        (QWEN, {"partial_rotary_factor": 0.5}),
        (QWEN, {"hidden_size": None}),
        (QWEN, {"vocab_size": "many"}),
    ],
)
def test_refuses_what_the_decoder_does_not_compute(base, change):
    with pytest.raises(UserError, match=next(iter(change))):
        config_from_hf(base | change)


@pytest.mark.parametrize(
    ("rope", "key"),
    [
        ({"rope_type": "yarn", "factor": 4.0}, "rope_type"),
        ({"type": "linear"}, "factor"),
        ({"type": "dynamic", "factor": 2.0}, "rope_type"),
        ({"rope_type": "llama3", "factor": 8.0}, "low_freq_factor"),
        ({"rope_type": "default", "partial_rotary_factor": 0.25}, "partial_rotary_factor"),
    ],
)
def test_refuses_other_rotations(rope, key):
    with pytest.raises(UserError, match=key):
        config_from_hf(LLAMA | {"rope_scaling": rope})


SIZES = [
    "vocab_size",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
]


@pytest.mark.parametrize("value", [0, -2, 10**9 * 2, 64.5, 1e9, True, "64", [64], {}, float("nan")])
@pytest.mark.parametrize("key", SIZES)
def test_refuses_sizes_that_no_model_has(key, value):
    with pytest.raises(UserError, match=f"config.json needs a positive whole number .* {key},"):
        config_from_hf(LLAMA | {key: value})


@pytest.mark.parametrize("value", [0, -1.0, "1e-5", float("inf"), float("nan"), [], False])
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_refuses_numbers_that_are_none(key, value):
    with pytest.raises(UserError, match=f"config.json needs a positive number under {key},"):
        config_from_hf(LLAMA | {key: value})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"head_dim": None, "num_attention_heads": 6}, "hidden_size .*multiples of the 6 heads"),
        ({"head_dim": 15}, "heads a size of 15.* Give an even head_dim"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings = 'false'"),
        ({"layer_types": 3}, "layer_types = 3"),
        ({"rope_scaling": "llama3"}, "rope_scaling = 'llama3'"),
        ({"rope_parameters": {"rope_type": ["llama3"]}}, "rope_type"),
        ({"rope_parameters": {"high_freq_factor": 1.0}}, "high_freq_factor = 1.0"),
        ({"rope_parameters": {"factor": "8"}}, "positive number under factor"),
        ({"rope_parameters": {"original_max_position_embeddings": -1}}, "original_max_position"),
        ({"model_type": ["llama"]}, "model_type = .*supported: llama, qwen2"),
        ({"model_type": "mixtral"}, "mixtral, a family that needs mixtures of experts, which"),
        ({"model_type": "gemma2"}, "gemma2, a family that needs soft caps on attention scores"),
        ({"model_type": "x" * 10_000}, "^.{,320}$"),
    ],
)
def test_refuses_values_of_another_kind(change, sentence):
    with pytest.raises(UserError, match=sentence):
        config_from_hf(LLAMA | change)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", '{"hidden_size": NaN}'])
def test_names_a_file_that_holds_no_configuration(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=f"{tmp_path}/config.json"):
        read_config(tmp_path)
