"""A decoder of few parameters, with weights that are far from a flat distribution."""

import dataclasses

import jax
import numpy as np

from memr1_jax.models.decoder import Block, init_params
from memr1_jax.models.decoder_config import DecoderConfig, RopeScaling
from memr1_jax.models.families import FAMILIES, FULL, NO_ROPE, SLIDING

CONFIG = DecoderConfig(
    vocab_size=61,
    num_layers=2,
    model_width=32,
    num_heads=4,
    num_kv_heads=2,
    head_size=8,
    mlp_width=48,
)
CONFIGS = {
    "tied": CONFIG,
    "untied, bias, scaling": dataclasses.replace(
        CONFIG,
        tie_embeddings=False,
        family=FAMILIES["qwen2"],
        rope_scaling=RopeScaling(factor=4.0, original_positions=16),
    ),
    "windows, all norms, layers without rotation": dataclasses.replace(
        CONFIG,
        num_layers=3,
        family=FAMILIES["gemma3_text"],
        layer_kinds=(SLIDING, FULL, NO_ROPE),
        window=4,
        sliding_theta=100.0,
        query_scalar=12.0,
        rope_scaling=RopeScaling(factor=8.0, original_positions=None),
    ),
}

# One of each family, as its config.json can say it.
FAMILY_CONFIGS = {
    "llama": CONFIG,
    "qwen2": dataclasses.replace(CONFIG, family=FAMILIES["qwen2"], tie_embeddings=False),
    "qwen3": dataclasses.replace(CONFIG, family=FAMILIES["qwen3"]),
    "mistral": dataclasses.replace(
        CONFIG, family=FAMILIES["mistral"], layer_kinds=(SLIDING, SLIDING), window=5
    ),
    "smollm3": dataclasses.replace(CONFIG, family=FAMILIES["smollm3"], layer_kinds=(NO_ROPE, FULL)),
    "gemma3_text": dataclasses.replace(
        CONFIG,
        family=FAMILIES["gemma3_text"],
        layer_kinds=(SLIDING, FULL),
        window=5,
        sliding_theta=100.0,
        query_scalar=12.0,
        rope_scaling=RopeScaling(factor=8.0, original_positions=None),
    ),
}


def random_params(config, seed=0):
    """Parameters with every leaf random, biases and scales too."""
    params = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        values = rng.normal(size=leaf.shape).astype(np.float32)
        is_scale = path[-1].key == "scale"
        return jax.device_put(1 + 0.2 * values if is_scale else 0.3 * values)

    return jax.tree_util.tree_map_with_path(fill, params)


def random_block(rng, shape, low, vocab=61):
    """Draws tokens of `shape`, padding included, and lengths from `low` to the last axis."""
    tokens = rng.integers(0, vocab, shape).astype(np.int32)
    return Block(tokens, rng.integers(low, shape[-1] + 1, shape[:-1]).astype(np.int32))


def random_chain(rng, cases=(), *, instruction=4, prompt=6, response=5, prompts=2, group=3):
    """Blocks [T0] -> [B, P] -> [B, G, R] with leading `cases`; only prompts are never empty."""
    return (
        random_block(rng, (*cases, instruction), 0),
        random_block(rng, (*cases, prompts, prompt), 1),
        random_block(rng, (*cases, prompts, group, response), 0),
    )
