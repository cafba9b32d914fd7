"""Checks of options that belong together, before anything is loaded."""

import warnings
from typing import Any

from memr1_jax.agents.outcomes import GAIN, LIKELIHOOD
from memr1_jax.data.curriculum import parse_curriculum
from memr1_jax.data.dialogues import check_shares, data_sources
from memr1_jax.errors import UserError
from memr1_jax.models.lora import parse_targets
from memr1_jax.options import check
from memr1_jax.parallel.mesh import parse_mesh
from memr1_jax.run.trackers import parse_trackers
from memr1_jax.text.events import Event
from memr1_jax.training.config import ExperimentConfig


def check_options(options: Any) -> None:
    """Raises UserError for options that no job can work with, before anything is loaded."""
    check(options)
    check_shares(options)
    data_sources(options)
    parse_curriculum(options.curriculum)
    if not isinstance(options, ExperimentConfig):
        return
    policy = options.policy
    _check_validation(options)
    _check_facts(options)
    parse_mesh(options.mesh)
    parse_trackers(options.track)
    if options.lora_rank:
        parse_targets(options.lora_targets)
    _check_horizon(options)
    _check_reward(options)
    _check_stratified(options)
    _check_resampling(options)
    _check_rollout_weights(options)
    if policy.demonstration_weight and options.algorithm not in ("grpo", "ppo"):
        raise UserError(
            f"--demonstration_weight={policy.demonstration_weight} adds demonstrations to the"
            f" rewards of GRPO and PPO, but --algorithm={options.algorithm}. Leave it out."
        )
    parts = policy.mini_batches * policy.micro_batches
    if options.batch * update_rows(options) % parts:
        raise UserError(
            f"--batch={options.batch} does not divide into --mini_batches={policy.mini_batches}"
            f" times --micro_batches={policy.micro_batches} equal parts. Change one of them."
        )
    if policy.kl_weight and policy.kl_placement == "loss" and policy.kl_kind == "k1":
        warnings.warn(
            "--kl_kind=k1 in the loss has no gradient in expectation: it penalises nothing. Use"
            " k2, k3, k1+ or k3+, or --kl_placement=reward.",
            stacklevel=2,
        )


def _check_rollout_weights(options: ExperimentConfig) -> None:
    sampled = options.algorithm in ("grpo", "ppo")
    if options.rollout_weights == "int8" and sampled and options.policy.sampler_cap is None:
        raise UserError(
            "--rollout_weights=int8 samples from another policy than the one that is trained. Give"
            " --sampler_cap=2, which weighs the difference, or leave it out."
        )


def _check_reward(options: ExperimentConfig) -> None:
    reward, horizon = options.reward, options.horizon
    learns_alone = options.agent in ("manager", "extractor")
    if not learns_alone and options.algorithm != "sft" and not reward.answer_weight:
        raise UserError(
            f"--reward={reward.outcome} measures banks alone, so it teaches the Answer Agent"
            " nothing. Give --agent=manager, or add an outcome of answers, such as exact_match."
        )
    if options.agent == "extractor" and reward.growth_weight:
        raise UserError(
            f"--growth_weight={reward.growth_weight} prices what the Memory Manager adds, but"
            " --agent=extractor. Leave it out."
        )
    if horizon.scheme == "terminal" and reward.weight_of(GAIN):
        raise UserError(
            f"--reward={reward.outcome} compares the banks before and after one turn, but"
            f" --horizon=terminal rewards whole episodes. Use {LIKELIHOOD} there."
        )
    if options.silent_turns and not options.retention_questions:
        raise UserError(
            f"--silent_turns={options.silent_turns} adds turns that no question is linked to, so"
            " nothing would judge them. Give --retention_questions=2 or more too."
        )


def _check_stratified(options: ExperimentConfig) -> None:
    policy = options.policy
    if not policy.stratified or options.agent == "answer":
        return
    if options.algorithm != "grpo" or options.horizon.episodic:
        raise UserError(
            "--stratified weighs the samples of one turn in a group: it goes with --algorithm=grpo"
            " and --horizon=one_step alone."
        )
    if not options.constrained or policy.group % len(Event):
        raise UserError(
            f"--stratified begins each sample of a group with one of {len(Event)} operations: it"
            f" needs --constrained, and a --group that {len(Event)} divides, not {policy.group}."
        )


def _check_resampling(options: ExperimentConfig) -> None:
    policy = options.policy
    if policy.oversample == 1 and policy.flat_odds == 1:
        return
    if options.algorithm != "grpo" or (options.horizon.episodic and options.agent != "answer"):
        raise UserError(
            f"--oversample={policy.oversample} and --flat_odds={policy.flat_odds} choose among"
            " groups of single turns or questions: they go with --algorithm=grpo and"
            " --horizon=one_step alone."
        )
    if policy.flat_odds < 1 and (options.curriculum or len(data_sources(options)) > 1):
        raise UserError(
            f"--flat_odds={policy.flat_odds} draws the prompts of a batch by its own odds, as do a"
            " mixture in --data and --curriculum. Use one of them."
        )


def _check_facts(options: ExperimentConfig) -> None:
    if options.agent == "extractor":
        if options.horizon.episodic:
            raise UserError(
                f"--horizon={options.horizon.scheme} is for the Memory Manager, but"
                " --agent=extractor. Leave --horizon out."
            )
        return
    facts, banks = options.extraction.facts, options.training_banks
    demonstrated = options.algorithm == "sft" or options.policy.demonstration_weight
    if facts == "noted" or not (banks == "gold" or demonstrated and options.agent != "answer"):
        return
    what = "--training_banks=gold" if banks == "gold" else "demonstrations of the Memory Manager"
    raise UserError(
        f"--facts={facts} replaces what the data note, on which {what} rest. Give --facts=noted, or"
        " leave them out."
    )


def _check_validation(options: ExperimentConfig) -> None:
    names = ("validation_folds", "validation_generated", "patience")
    given = [name for name in names if getattr(options, name)]
    if given and options.select != "validation":
        raise UserError(
            f"--{given[0]} needs --select=validation, which measures held-out dialogues."
        )
    folds, fold = options.validation_folds, options.validation_fold
    if folds == 1 or folds and fold >= folds:
        raise UserError(
            f"--validation_fold={fold} must be below --validation_folds={folds}, which is 0 or at"
            " least 2."
        )


def update_rows(options: ExperimentConfig) -> int:
    """Counts the rows of an update that one row of the batch becomes at least."""
    horizon = options.horizon
    if not horizon.episodic or options.agent != "manager":
        return 1
    turns = horizon.compared(horizon.episode_turns or 1)
    return turns * options.policy.group if horizon.scheme == "terminal" else turns


def _check_horizon(options: ExperimentConfig) -> None:
    horizon = options.horizon
    if not horizon.episodic:
        return
    if options.algorithm == "sft":
        raise UserError(
            f"--horizon={horizon.scheme} is for rewards, but --algorithm=sft learns from"
            " demonstrations. Leave --horizon out."
        )
    if horizon.scheme == "terminal" and options.algorithm == "ppo":
        raise UserError(
            "--horizon=terminal compares the trajectories of a group, which --algorithm=ppo does"
            " not do. Use --algorithm=grpo, or --horizon=branches."
        )
    weights = (horizon.local_weight, horizon.final_weight)
    if horizon.scheme == "branches" and not sum(weights):
        raise UserError(
            f"--local_weight={weights[0]} and --final_weight={weights[1]} reward nothing: raise one"
            " of them above 0."
        )
