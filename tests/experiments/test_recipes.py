"""Published methods by name: all their parts, and what is given along with them."""

import dataclasses

import pytest
from absl import flags

from experiments.command_line import define_flags, parsed
from memr1_jax.errors import UserError
from memr1_jax.options import flag_values, with_options
from memr1_jax.rl.recipes import ABSENT, RECIPES, with_recipe
from memr1_jax.rl.update import GRPOOptions
from memr1_jax.training.build import build_learner
from memr1_jax.training.config import ExperimentConfig, PPOConfig


def _parsed(*arguments):
    values = flags.FlagValues()
    define_flags(ExperimentConfig, values)
    values(["test", *arguments])
    return parsed(ExperimentConfig, values)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_all_its_parts_and_prints_them(name, capsys):
    options = _parsed(f"--recipe={name}", "--group=3")
    said = capsys.readouterr().out
    for part, value in RECIPES[name].items():
        assert flag_values(options)[part] == value and f"--{part}={value}" in said
    assert options.recipe == "" and options.policy.group == 3
    assert ("Absent from" in said) == (name in ABSENT)
    algorithm = build_learner(options, "answer").algorithm
    assert (
        isinstance(algorithm, GRPOOptions) and algorithm.aggregation == options.policy.aggregation
    )
    # The same from Python, and a second time.
    again = with_recipe(with_options(ExperimentConfig(), recipe=name, group=3))
    assert again == options and with_recipe(again) is again


def test_every_recipe_names_the_same_parts():
    common = {"advantage", "aggregation", "ratio", "clip_low", "clip_high", "kl_weight"}
    for parts in RECIPES.values():
        assert common | {"drop_flat_groups", "mask_truncated", "dual_clip"} <= parts.keys()
        assert "kl_placement" in parts or parts["kl_weight"] == 0


def test_the_whole_of_dr_grpo_has_no_length_in_its_denominator():
    options = _parsed("--recipe=dr_grpo")
    assert (options.policy.advantage, options.policy.aggregation) == (
        "dr_grpo",
        "seq-mean-token-sum-norm",
    )
    assert _parsed("--advantage=dr_grpo").policy.aggregation == "token-mean"


def test_what_is_given_beside_a_recipe_wins_and_is_printed(capsys):
    """Covers values that are the default of their flag, too."""
    options = _parsed("--aggregation=token-mean", "--recipe=dr_grpo", "--kl_weight=0.5")
    assert (options.policy.aggregation, options.policy.kl_weight) == ("token-mean", 0.5)
    assert options.policy.advantage == "dr_grpo"
    said = capsys.readouterr().out
    assert "not the recipe's: --kl_weight=0.5 --aggregation=token-mean." in said
    assert with_recipe(options) is options
    given = with_options(ExperimentConfig(), recipe="gspo", clip_high=0.1)
    assert with_recipe(given, say=lambda text: None).policy.clip_high == 0.1


def test_a_recipe_is_one_of_grpo_and_known():
    with pytest.raises(UserError, match="--algorithm=grpo, not of ppo"):
        with_recipe(PPOConfig(recipe="dapo"))
    with pytest.raises(UserError, match="--recipe=ppo is not known.*dr_grpo"):
        with_recipe(ExperimentConfig(recipe="ppo"))


@pytest.mark.parametrize(
    "field, value", [("advantage", "rlo"), ("aggregation", "mean"), ("kl_placement", "rewards")]
)
def test_a_name_that_means_nothing_is_refused(field, value):
    with pytest.raises(ValueError, match=f"Unknown {field} '{value}'"):
        GRPOOptions(**{field: value})
    assert dataclasses.replace(GRPOOptions(), clip_low=0.1).clip_low == 0.1


def test_an_algorithm_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="--algorithm=reinforce is none of grpo, ppo"):
        build_learner(ExperimentConfig(algorithm="reinforce"), "manager")
