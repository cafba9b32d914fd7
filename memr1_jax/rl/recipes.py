"""Whole methods by name: a recipe sets all options that make the loss of a published method.

They are the options of `GRPO`; how long and on how much an agent learns is left as it is.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from memr1_jax.errors import UserError
from memr1_jax.options import as_flags, changed_flags, flag_values, with_options

Options = TypeVar("Options")

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
    "dapo": "sampling again until no group is flat (flat groups are left out instead, see also"
    " --oversample), and the soft penalty of overlong responses",
}


def with_recipe(
    options: Options, given: Iterable[str] | None = None, say: Callable = print
) -> Options:
    """Sets the parts of the recipe that the options name, but for those that were given.

    The recipe's name is then emptied: its parts are what a run does and records.

    Args:
      options: any options; those without a recipe are returned as they are.
      given: names of options that win over the recipe; None: those that are not at their default.
      say: is told what was set, what won, and what of the method does not exist.

    Raises:
      UserError: the recipe is not known, or is one of GRPO and the algorithm is another.
    """
    name = getattr(options, "recipe", "")
    if not name:
        return options
    if name not in RECIPES:
        raise UserError(f"--recipe={name} is not known: choose one of {', '.join(RECIPES)}.")
    algorithm = getattr(options, "algorithm", "")
    if algorithm != "grpo":
        raise UserError(
            f"--recipe={name} sets the loss of --algorithm=grpo, not of {algorithm}. Leave one of"
            " them out."
        )
    values = flag_values(options)
    given = changed_flags(options) if given is None else given
    parts = RECIPES[name]
    kept = [part for part in parts if part in given and values[part] != parts[part]]
    chosen = {part: value for part, value in parts.items() if part not in kept}
    say(f"--recipe={name} sets {' '.join(as_flags(chosen))}.")
    if kept:
        won = {part: values[part] for part in kept}
        say(f"Given explicitly, and so not the recipe's: {' '.join(as_flags(won))}.")
    if name in ABSENT:
        say(f"Absent from {name} here: {ABSENT[name]}.")
    return with_options(options, recipe="", **chosen)
