"""A published method by its name, as options: what it sets, and what wins over it."""

from collections.abc import Callable, Iterable

from memr1_jax.errors import UserError
from memr1_jax.options import Record, flag_values, with_options
from memr1_jax.rl.recipes import ABSENT, RECIPES
from memr1_jax.training.agent_folder import with_model_settings


def settled(options: Record, given: Iterable[str] | None = None, say: Callable = print) -> Record:
    """Sets what the model's folder and a recipe say, but for what was given.

    Takes and raises what `with_model_settings` and `with_recipe` do; a second call changes nothing.
    """
    return with_recipe(with_model_settings(options, given, say), given, say)


def with_recipe(
    options: Record, given: Iterable[str] | None = None, say: Callable = print
) -> Record:
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
    if options.algorithm != "grpo":
        raise UserError(
            f"--recipe={name} sets the loss of --algorithm=grpo, not of {options.algorithm}. Leave"
            " one of them out."
        )
    values = flag_values(options)
    if given is None:
        defaults = flag_values(type(options)())
        given = [flag for flag, value in values.items() if value != defaults[flag]]
    parts = RECIPES[name]
    kept = [part for part in parts if part in given and values[part] != parts[part]]
    chosen = {part: value for part, value in parts.items() if part not in kept}
    say(f"--recipe={name} sets {_as_flags(chosen)}.")
    if kept:
        kept = {part: values[part] for part in kept}
        say(f"Given beside it, and so not the recipe's: {_as_flags(kept)}.")
    if name in ABSENT:
        say(f"Absent from {name} here: {ABSENT[name]}.")
    return with_options(options, recipe="", **chosen)


def _as_flags(values):
    return " ".join(f"--{name}={value}" for name, value in values.items())
