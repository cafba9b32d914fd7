"""Whole methods by name: a recipe sets all options that make the loss of a published method.

They are the options of `GRPO`; how long and on how much an agent learns is left as it is.
"""

from typing import Any

_CLIP = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 0.0, "ratio": "token"}
_NO_KL = {"kl_weight": 0.0}
_ALL_SAMPLES = {"mask_truncated": False, "drop_flat_groups": False, "entropy_weight": 0.0}

RECIPES: dict[str, dict[str, Any]] = {
    # DeepSeekMath, arXiv 2402.03300, equations 3 and 4.
    "grpo": {
        **{"advantage": "grpo", "aggregation": "seq-mean-token-mean"},
        **{"kl_weight": 0.04, "kl_placement": "loss", "kl_kind": "k3"},
        **_CLIP,
        **_ALL_SAMPLES,
    },
    # Liu et al., arXiv 2503.20783: neither the deviation nor the length divides.
    "dr_grpo": {
        **{"advantage": "dr_grpo", "aggregation": "seq-mean-token-sum-norm"},
        **_NO_KL,
        **_CLIP,
        **_ALL_SAMPLES,
    },
    # Yu et al., arXiv 2503.14476: a higher clip, every token alike, no flat or truncated samples.
    "dapo": {
        **{"advantage": "grpo", "aggregation": "token-mean"},
        **_NO_KL,
        **_CLIP,
        **_ALL_SAMPLES,
        **{"clip_high": 0.28, "drop_flat_groups": True, "mask_truncated": True},
    },
    # Zheng et al., arXiv 2507.18071: ratios and clips of whole sequences.
    "gspo": {
        **{"advantage": "grpo", "aggregation": "seq-mean-token-mean"},
        **_NO_KL,
        **_CLIP,
        **_ALL_SAMPLES,
        **{"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    },
    # Ahmadian et al., arXiv 2402.14740: REINFORCE on whole responses, the penalty in the reward.
    "rloo": {
        **{"advantage": "rloo", "aggregation": "seq-mean-token-sum"},
        **{"kl_weight": 0.03, "kl_placement": "reward"},
        **_CLIP,
        **_ALL_SAMPLES,
    },
}

# Parts of a method that do not exist here.
ABSENT = {
    "dapo": "sampling again until no group is flat (flat groups are left out instead), and the soft"
    " penalty of overlong responses",
}
