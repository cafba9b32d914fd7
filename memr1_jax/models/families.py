"""The model families that the decoder serves, one row each, with all that differs between them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Kinds of layers: how their attention tells positions.
FULL = "full"  # rotated, and sees all keys before it
SLIDING = "sliding"  # rotated, and sees the last keys only
NO_ROPE = "no_rope"  # not rotated


@dataclasses.dataclass(frozen=True)
class Family:
    """Describes a family: its arithmetic, the names of its tensors and its config.json.

    `norms` names a layer's norms, ours and as published; those called `post` stand behind a half
    of the layer, the others before it. `defaults` has keys that config.json may leave out. The keys
    on windows and on layers without rotation are read and written only where they are listed.
    """

    model_type: str  # in config.json
    architecture: str  # class in transformers
    models: str  # published ones, for messages
    qkv_bias: bool = False  # queries, keys and values have a bias
    qk_norm: bool = False  # queries and keys are normalised head by head before they are rotated
    offset_norms: bool = False  # norms multiply by 1 + scale
    scaled_embeddings: bool = False  # embeddings are multiplied by the root of the model width
    activation: str = "silu"  # of the feed-forward network
    activation_key: str = "hidden_act"
    norms: tuple[tuple[str, str], ...] = (
        ("attention_norm", "input_layernorm"),
        ("mlp_norm", "post_attention_layernorm"),
    )
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    wrapper: str = ""  # model_type of a model that also sees, whose text_config is of this family

    @property
    def post_norms(self) -> bool:
        """Tells whether the halves of a layer end in a norm as well."""
        return "attention_post_norm" in dict(self.norms)


_QWEN_WINDOW = {
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,  # layers from here on have a window
    "layer_types": None,
}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("llama", "LlamaForCausalLM", "Llama 3, SmolLM2"),
        Family("qwen2", "Qwen2ForCausalLM", "Qwen2.5", qkv_bias=True, defaults=_QWEN_WINDOW),
        Family(
            "qwen3",
            "Qwen3ForCausalLM",
            "Qwen3 (dense)",
            qk_norm=True,
            defaults=_QWEN_WINDOW | {"head_dim": 128},
        ),
        Family(
            "mistral",
            "MistralForCausalLM",
            "Mistral 7B",
            defaults={"sliding_window": 4096},  # of all layers; null since version 0.2
        ),
        Family(
            "smollm3",
            "SmolLM3ForCausalLM",
            "SmolLM3",
            defaults={
                "no_rope_layers": None,  # 0 for a layer without rotation, else 1
                "no_rope_layer_interval": 4,  # where no list is given: every fourth
                "rope_theta": 2_000_000.0,
                "tie_word_embeddings": True,
                "pad_token_id": None,  # written: else transformers takes 128004
            },
        ),
        Family(
            "gemma3_text",
            "Gemma3ForCausalLM",
            "Gemma 3 (text)",
            qk_norm=True,
            offset_norms=True,
            scaled_embeddings=True,
            activation="gelu_pytorch_tanh",
            activation_key="hidden_activation",
            norms=(
                ("attention_norm", "input_layernorm"),
                ("attention_post_norm", "post_attention_layernorm"),
                ("mlp_norm", "pre_feedforward_layernorm"),
                ("mlp_post_norm", "post_feedforward_layernorm"),
            ),
            defaults={
                "vocab_size": 262_208,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "max_position_embeddings": 131_072,
                "rope_theta": 1_000_000.0,
                "rope_local_base_freq": 10_000.0,  # of layers with a window
                "query_pre_attn_scalar": 256,  # scores are divided by its root
                "sliding_window": 4096,
                "sliding_window_pattern": 6,  # where no types are given: every sixth sees all keys
                "layer_types": None,
                "tie_word_embeddings": True,
            },
            wrapper="gemma3",
        ),
    )
}

_EXPERTS = "mixtures of experts"
# Families without a row, and what the decoder lacks for them.
MISSING: dict[str, str] = {
    "gemma2": "soft caps on attention scores and logits",
    "gemma3n": "embeddings of every layer and alternating updates",
    "gemma3n_text": "embeddings of every layer and alternating updates",
    "phi3": "projections that are fused in one tensor",
    "qwen3_next": "linear attention",
    "qwen2_vl": "positions in three dimensions",
    "qwen2_5_vl": "positions in three dimensions",
    "qwen3_vl": "positions in three dimensions",
    "gpt2": "learned positions and layer norms with a mean",
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "llama4", "llama4_text"), _EXPERTS),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "gpt_oss", "olmoe"), _EXPERTS),
}
