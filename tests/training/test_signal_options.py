"""Options of rewards, pressure and exploration that do not go together."""

import pytest
from tiny_model import options

from memr1_jax.errors import UserError
from memr1_jax.training.checks import check_options

FOUR = {"agent": "manager", "group": 4, "stratified": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "recall"}, "teaches the Answer Agent nothing. Give --agent=manager"),
        (
            {"reward": "likelihood_gain", "agent": "manager", "horizon": "terminal"},
            "one turn",
        ),
        ({"silent_turns": 0.5}, "Give --retention_questions=2"),
        ({"growth_weight": -1.0}, "--growth_weight=-1.0 must be 0 or more"),
        (FOUR | {"group": 6}, "a --group that 4 divides, not 6"),
        (FOUR | {"constrained": False}, "needs --constrained"),
        (FOUR | {"horizon": "branches"}, "--horizon=one_step alone"),
        (FOUR | {"algorithm": "best_of_n"}, "--algorithm=grpo"),
        ({"oversample": 2, "algorithm": "ppo"}, "--algorithm=grpo"),
        ({"flat_odds": 0.5, "horizon": "branches"}, "--horizon=one_step alone"),
        ({"flat_odds": 0.0}, "--flat_odds=0.0 must be from 0.001 to 1"),
        ({"flat_odds": 0.5, "data": "locomo,synthetic"}, "as do a mixture in --data"),
        ({"flat_odds": 0.5, "curriculum": "2:1,3"}, "and --curriculum. Use one of them"),
        ({"growth_weight": 0.3, "agent": "extractor"}, "prices what the Memory Manager adds"),
        ({"rollout_weights": "int8"}, "Give --sampler_cap=2"),
        ({"rollout_weights": "int8", "algorithm": "ppo"}, "Give --sampler_cap=2"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check_options(options(**changes))


def test_what_goes_together_is_taken():
    both = {"reward": "recall:1,exact_match:1", "retention_questions": 1, "silent_turns": 0.5}
    check_options(options(**both, growth_weight=0.3, group=8, stratified=True, oversample=2))
    check_options(options(reward="likelihood", agent="manager", horizon="terminal"))
    check_options(options(reward="recall", agent="manager", flat_odds=0.5))
    check_options(options(rollout_weights="int8", sampler_cap=2.0))
    check_options(options(rollout_weights="int8", algorithm="best_of_n"))  # weighs no samples
