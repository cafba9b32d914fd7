"""Tiny models of all families with seeded weights, and what transformers computes with them.

The configurations and tensor names are written out by hand in Hugging Face's terms, so that
nothing of the code under test takes part in the reference.
"""

import json
from pathlib import Path

import numpy as np

VOCAB, WIDTH, LAYERS, HEADS, MLP = 320, 64, 2, 4, 96
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": MLP,
    "hidden_act": "silu",
    "max_position_embeddings": 131_072,
}
GEMMA = {key: value for key, value in COMMON.items() if key != "hidden_act"} | {
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "num_key_value_heads": 1,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window": 8,
    "sliding_window_pattern": 2,
}
CONFIGS = {
    "llama_scaled": COMMON
    | {
        "model_type": "llama",
        "num_key_value_heads": 2,
        "head_dim": 64,  # not WIDTH / HEADS
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "llama_tied": COMMON
    | {
        "model_type": "llama",
        "num_key_value_heads": 4,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    },
    "qwen2_biased": COMMON
    | {
        "model_type": "qwen2",
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "rope_theta": 1_000_000.0,
    },
    "qwen3": COMMON
    | {
        "model_type": "qwen3",
        "num_key_value_heads": 2,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "rope_theta": 1_000_000.0,
    },
    "qwen3_window": COMMON
    | {
        "model_type": "qwen3",
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 1,
        "rope_theta": 1_000_000.0,
    },
    "mistral": COMMON
    | {
        "model_type": "mistral",
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "sliding_window": None,
        "rope_theta": 1_000_000.0,
    },
    "mistral_window": COMMON
    | {
        "model_type": "mistral",
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "sliding_window": 7,
        "rope_theta": 10_000.0,
    },
    "smollm3": COMMON
    | {
        "model_type": "smollm3",
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "no_rope_layers": [1, 0],
        "layer_types": ["full_attention", "full_attention"],
        "use_sliding_window": False,
        "sliding_window": None,
        "pad_token_id": 0,
        "rope_theta": 5_000_000.0,
    },
    "gemma3": GEMMA,
    "gemma3_scaled": GEMMA
    | {
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "layer_types": ["full_attention", "sliding_attention"],
        "tie_word_embeddings": False,  # else random weights echo the last token
    },
}
# The first three were numbered among themselves.
_SEEDS = {name: 50 + place for place, name in enumerate(CONFIGS)}
NEAR = 40  # tokens at positions 0, 1, ...
# Tokens at positions 0..23, then at 4100..4123: rotations must bridge the gap.
FAR_START, FAR = 4100, 24
KEPT = [*range(8), NEAR - 1]  # positions of the short input whose logits are kept
PROMPT, GREEDY = 12, 64


def state_dict(name: str) -> dict[str, np.ndarray]:
    """Returns the seeded float32 weights of a model, by Hugging Face's names."""
    config, random = CONFIGS[name], np.random.default_rng(_SEEDS[name])
    head_size = config.get("head_dim", WIDTH // HEADS)
    heads, kv_heads = HEADS * head_size, config["num_key_value_heads"] * head_size

    def normal(*shape, scale):
        return (scale * random.standard_normal(shape)).astype(np.float32)

    def linear(outputs, inputs, scale=1.0):
        return normal(outputs, inputs, scale=scale / np.sqrt(inputs))

    def norm(size):
        return (0 if gemma else 1) + normal(size, scale=0.1)

    kind = config["model_type"]
    gemma = kind == "gemma3_text"
    scale = 0.025 if gemma and not config.get("tie_word_embeddings", True) else 0.2
    weights = {"model.embed_tokens.weight": normal(VOCAB, WIDTH, scale=scale)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        attention = f"{prefix}self_attn."
        weights[f"{prefix}input_layernorm.weight"] = norm(WIDTH)
        weights[f"{attention}q_proj.weight"] = linear(heads, WIDTH, 0.6)
        weights[f"{attention}k_proj.weight"] = linear(kv_heads, WIDTH, 0.6)
        weights[f"{attention}v_proj.weight"] = linear(kv_heads, WIDTH)
        weights[f"{attention}o_proj.weight"] = linear(WIDTH, heads, 4.0)
        if kind in ("qwen3", "gemma3_text"):
            weights[f"{attention}q_norm.weight"] = norm(head_size)
            weights[f"{attention}k_norm.weight"] = norm(head_size)
        if kind == "qwen2":
            for letter, size in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
                weights[f"{attention}{letter}_proj.bias"] = normal(size, scale=0.25)
        weights[f"{prefix}post_attention_layernorm.weight"] = norm(WIDTH)
        if gemma:
            weights[f"{prefix}pre_feedforward_layernorm.weight"] = norm(WIDTH)
            weights[f"{prefix}post_feedforward_layernorm.weight"] = norm(WIDTH)
        weights[f"{prefix}mlp.gate_proj.weight"] = linear(MLP, WIDTH)
        weights[f"{prefix}mlp.up_proj.weight"] = linear(MLP, WIDTH)
        weights[f"{prefix}mlp.down_proj.weight"] = linear(WIDTH, MLP, 3.0)
    weights["model.norm.weight"] = norm(WIDTH)
    if not config.get("tie_word_embeddings", True):
        weights["lm_head.weight"] = linear(VOCAB, WIDTH)
    return weights


def inputs(name: str) -> dict[str, np.ndarray]:
    """Returns token ids of the short and of the far input, and the far positions."""
    random = np.random.default_rng(50 + _SEEDS[name])
    # transformers counts a window in tokens, whatever their positions: there no gap can be left.
    above = FAR_START if CONFIGS[name].get("sliding_window") else FAR
    far = np.concatenate([np.arange(above), FAR_START + np.arange(FAR)])
    return {
        "near_ids": random.integers(0, VOCAB, NEAR),
        "far_ids": random.integers(0, VOCAB, len(far)),
        "far_positions": far,
        "checksum": np.array([float(np.abs(w).sum()) for w in state_dict(name).values()]),
    }


def write_folder(folder: Path, name: str) -> Path:
    """Writes a model as a Hugging Face folder."""
    from safetensors.numpy import save_file

    save_file(state_dict(name), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    return folder


def reference(name: str) -> dict[str, np.ndarray]:
    """Computes by transformers the logits of both inputs, and greedy tokens; needs torch."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(CONFIGS[name])
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(config.pop("model_type"), **config), attn_implementation="eager"
    ).eval()
    weights = {key: torch.from_numpy(value) for key, value in state_dict(name).items()}
    if model.config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    result = inputs(name)
    with torch.no_grad():
        # A mask of ones says that a jump of the positions does not begin another sequence.
        near = model(torch.from_numpy(result["near_ids"])[None]).logits[0]
        far = model(
            torch.from_numpy(result["far_ids"])[None],
            attention_mask=torch.ones(1, len(result["far_ids"]), dtype=torch.long),
            position_ids=torch.from_numpy(result["far_positions"])[None],
            logits_to_keep=FAR,
        ).logits[0]
        ids = torch.from_numpy(result["near_ids"][:PROMPT])[None]
        margins = []
        for _ in range(GREEDY):
            top = model(ids).logits[0, -1].topk(2)
            margins.append(float(top.values[0] - top.values[1]))
            ids = torch.cat([ids, top.indices[:1][None]], dim=1)
    return result | {
        "near_logits": near[KEPT].numpy(),
        "far_logits": far.numpy(),
        "greedy": ids[0, PROMPT:].numpy(),
        "margin": np.array(min(margins)),
    }
