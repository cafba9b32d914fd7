"""Whole methods by name: a recipe sets all options that make the loss of a published method.

They are the options of `GRPO`; how long and on how much an agent learns is left as it is.
"""

from typing import Any

_PLAIN = {
    "ratio": "token",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "dual_clip": None,
    "kl_weight": 0.0,
    "entropy_weight": 0.0,
    "mask_truncated": False,
    "drop_flat_groups": False,
}

RECIPES: dict[str, dict[str, Any]] = {
    # DeepSeekMath, arXiv 2402.03300, equations 3 and 4.
    "grpo": _PLAIN
    | {"advantage": "grpo", "aggregation": "seq-mean-token-mean"}
    | {"kl_weight": 0.04, "kl_placement": "loss", "kl_kind": "k3"},
    # Liu et al., arXiv 2503.20783: neither a deviation nor a length divides.
    "dr_grpo": _PLAIN | {"advantage": "dr_grpo", "aggregation": "seq-mean-token-sum-norm"},
    # Yu et al., arXiv 2503.14476: a higher clip, every token alike, no flat or truncated samples.
    "dapo": _PLAIN
    | {"advantage": "grpo", "aggregation": "token-mean"}
    | {"clip_high": 0.28, "drop_flat_groups": True, "mask_truncated": True},
    # Zheng et al., arXiv 2507.18071: ratios and clips of whole sequences.
    "gspo": _PLAIN
    | {"advantage": "grpo", "aggregation": "seq-mean-token-mean"}
    | {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    # Ahmadian et al., arXiv 2402.14740: REINFORCE on whole responses, the penalty in the reward.
    "rloo": _PLAIN
    | {"advantage": "rloo", "aggregation": "seq-mean-token-sum"}
    | {"kl_weight": 0.03, "kl_placement": "reward"},
}

# Parts of a method that do not exist here.
ABSENT = {
    "dapo": "sampling again until no group is flat (flat groups are left out instead), and the soft"
    " penalty of overlong responses",
}
