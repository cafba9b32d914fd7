"""GRPO, from a rollout to new weights: reference pass, advantages, gradient, optimiser."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.options import at_least, between, option
from memr1_jax.rl.advantages import ADVANTAGES, group_advantages, informative_groups
from memr1_jax.rl.means import Mean, masked_mean, weighted_mean
from memr1_jax.rl.minibatches import run_mini_batches
from memr1_jax.rl.policy import (
    Complete,
    Experience,
    PolicyBatch,
    all_trained,
    fixed_logprobs,
    group_penalties,
    likelihood_statistics,
    policy_statistics,
    policy_step,
    response_mask,
)
from memr1_jax.rl.policy_options import PolicyOptions, check_names
from memr1_jax.rl.trajectories import by_row, returns
from memr1_jax.run.streams import named_key, run_key
from memr1_jax.text.grammar import Grammar


@dataclasses.dataclass(frozen=True)
class GRPOOptions(PolicyOptions):
    """Set what group relative policy optimisation and its relatives have alone.

    `drop_flat_groups` leaves prompts whose samples all scored the same out of every term and of its
    denominators: DAPO's dynamic sampling (arXiv 2503.14476) without sampling again. `oversample`
    samples more prompts at once and keeps the most informative: the same in fixed shapes.
    """

    advantage: str = option(
        "grpo",
        "How a group's samples are compared. dr_grpo leaves out the deviation alone; for the whole"
        " method use --recipe=dr_grpo.",
        tuple(ADVANTAGES),
    )
    drop_flat_groups: bool = option(False, "Leave groups of equal rewards out of the loss.")
    oversample: int = option(
        1,
        "Prompts that are rolled out for each one that is learned from, in parts of --batch: those"
        " whose samples' rewards differ most are kept.",
        within=at_least(1),
    )
    flat_odds: float = option(
        1.0,
        "Odds of drawing a prompt again, compared with others, whose samples all earned the same"
        " when it was last drawn; 1: epochs of shuffled prompts.",
        within=between(0.001, 1),
    )
    stratified: bool = option(
        False,
        "Let the samples of a manager's group begin with ADD, UPDATE, DELETE and NONE in turn, each"
        " weighted by the policy's probability of that operation. Needs --constrained and a --group"
        " that 4 divides.",
    )
    stratified_floor: float = option(
        0.0,
        "Least probability by which an operation counts in a stratified group, so that one that the"
        " policy hardly ever chooses still moves it, at the price of a bias; 0: exact.",
        within=between(0, 0.25),
    )

    def __post_init__(self):
        """Refuses names that mean nothing; raises ValueError."""
        super().__post_init__()
        check_names(advantage=(self.advantage, ADVANTAGES))


@struct.dataclass
class TrainState:
    """All that an update changes: float32 parameters, optimiser state, step `[]`, random key."""

    params: dict
    opt_state: Any
    step: jax.Array
    key: jax.Array

    def order_key(self) -> jax.Array:
        """Returns the key of the order of this step's mini-batches."""
        return jax.random.fold_in(named_key(self.key, "mini_batches"), self.step)

    def demonstration_key(self) -> jax.Array:
        """Returns the key that picks this step's demonstrations."""
        return jax.random.fold_in(named_key(self.key, "demonstrations"), self.step)

    def rollout_key(self) -> jax.Array:
        """Returns the key of this step's rollout."""
        return jax.random.fold_in(named_key(self.key, "rollout"), self.step)


@struct.dataclass
class WeighedState(TrainState):
    """`TrainState` with the odds `[rows]` of each prompt of the data to be drawn."""

    odds: jax.Array


def weigh_prompts(state: TrainState, rows: int) -> WeighedState:
    """Adds equal odds of `rows` prompts to a state."""
    return WeighedState(state.params, state.opt_state, state.step, state.key, jnp.ones(rows))


def create_state(
    params: dict, optimizer: optax.GradientTransformation, seed: int, agent: str = ""
) -> TrainState:
    """Makes the state before the first step; agents of one seed draw from streams of their own."""
    return TrainState(params, optimizer.init(params), jnp.int32(0), run_key(seed, agent))


# From a learning rate and a weight decay.
OPTIMIZERS: dict[str, Callable[[Any, float], optax.GradientTransformation]] = {
    "adamw": lambda rate, decay: optax.adamw(rate, weight_decay=decay),
    "lion": lambda rate, decay: optax.lion(rate, weight_decay=decay),  # one moment, no second
}


def create_optimizer(
    learning_rate: float,
    *,
    name: str = "adamw",
    warmup_steps: int = 0,
    weight_decay: float = 0.01,
    clip: float = 1.0,
) -> optax.GradientTransformation:
    """Makes one of `OPTIMIZERS` with global-norm clipping, by default as verl's.

    The learning rate climbs linearly, then stays.
    """
    schedule: float | optax.Schedule = learning_rate
    if warmup_steps:
        # Starts one notch above zero, so that no step is wasted.
        schedule = optax.linear_schedule(
            learning_rate / (warmup_steps + 1), learning_rate, warmup_steps
        )
    return optax.chain(optax.clip_by_global_norm(clip), OPTIMIZERS[name](schedule, weight_decay))


def update(
    algorithm: GRPOOptions,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    reference: dict | None,
    instruction: Block,
    experience: Experience,
    grammar: Grammar | None = None,
    complete: Complete = all_trained,
    demonstrations: Experience | None = None,
) -> tuple[TrainState, dict[str, Mean]]:
    """Learns from one rollout, by default in one optimiser step.

    Mini- and micro-batches are slices of prompts; every loss term is divided by counts of its whole
    mini-batch, so the number of micro-batches does not matter.

    Args:
      algorithm: options.
      decoder: the policy's network.
      optimizer: from `create_optimizer`.
      state: the state before; its random key is left alone.
      reference: parameters of the reference policy; needed only where `kl_weight` is not 0.
      instruction: the block above all prompts.
      experience: the rollout.
      grammar: the grammar that sampling was constrained by, if any.
      complete: makes the network's parameters from `state.params`, where those are adapters.
      demonstrations: as many as the rollout has rows, which are made more likely by the same steps.

    Raises:
      ValueError: the batch does not divide into mini- and micro-batches, or a reference is missing.
    """
    statistics = policy_statistics(algorithm, decoder, instruction, grammar)
    old_logp, ref_logp = fixed_logprobs(
        algorithm, statistics, complete(state.params), reference, experience
    )
    rewards, valid = returns(experience.trajectories, experience.rewards, experience.valid)
    weights = experience.weights
    informative = informative_groups(rewards, weights)
    mask = response_mask(experience, algorithm.mask_truncated)
    if algorithm.drop_flat_groups:
        kept = jnp.broadcast_to(informative[:, None], rewards.shape)
        mask &= by_row(experience.trajectories, kept)[..., None]
    advantages, penalty_metrics = sample_advantages(algorithm, experience, old_logp, ref_logp)
    advantages = by_row(experience.trajectories, advantages)[..., None]
    batch = PolicyBatch(experience, mask, advantages, old_logp, ref_logp, demonstrations)
    likelihood = likelihood_statistics(algorithm, decoder, instruction)

    def step(carry, part):
        *carry, metrics = policy_step(
            algorithm, statistics, optimizer, *carry, part, complete, likelihood
        )
        return tuple(carry), metrics

    (params, opt_state), metrics = run_mini_batches(
        step,
        (state.params, state.opt_state),
        batch,
        state.order_key(),
        epochs=algorithm.epochs,
        mini_batches=algorithm.mini_batches,
    )
    metrics |= penalty_metrics | {
        "reward": weighted_mean(rewards, valid[:, None], weights),
        "informative_groups": masked_mean(informative, valid),
    }
    after = dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1)
    return after, metrics


def sample_advantages(
    algorithm: GRPOOptions,
    experience: Experience,
    old_logp: jax.Array | None,
    ref_logp: jax.Array | None,
) -> tuple[jax.Array, dict[str, Mean]]:
    """Compares the samples of each group, or its trajectories, by outcome and penalty.

    The reward of a response counts in its group whether or not the loss leaves the response out.

    Returns:
      Advantages `[B, G]`, and metrics of the penalty.
    """
    rewards, _ = returns(experience.trajectories, experience.rewards, experience.valid)
    penalties, metrics = group_penalties(algorithm, experience, old_logp, ref_logp)
    weights = experience.weights
    return group_advantages(rewards, algorithm.advantage, penalties, weights), metrics
