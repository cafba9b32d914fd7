"""PPO with a critic, from a rollout to new weights of both networks (arXiv 1707.06347)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from memr1_jax.models.critic import init_critic, response_values
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.options import above, between, option, with_default
from memr1_jax.rl.advantages import last_token_rewards
from memr1_jax.rl.gae import centre, generalised_advantages, whiten
from memr1_jax.rl.losses import denominators, value_loss
from memr1_jax.rl.means import Mean, fields, masked_mean
from memr1_jax.rl.minibatches import (
    accumulate_gradients,
    map_parts,
    optimiser_step,
    run_mini_batches,
)
from memr1_jax.rl.policy import (
    Complete,
    Experience,
    PolicyBatch,
    all_trained,
    fixed_logprobs,
    likelihood_statistics,
    net_rewards,
    policy_statistics,
    policy_step,
    response_mask,
    token_penalties,
)
from memr1_jax.rl.policy_options import PolicyOptions
from memr1_jax.rl.update import TrainState, create_state
from memr1_jax.run.streams import named_key
from memr1_jax.text.grammar import Grammar


@dataclasses.dataclass(frozen=True)
class PPOOptions(PolicyOptions):
    """Set what proximal policy optimisation has alone.

    Defaults are verl's: no discount, lambda 1, values clipped at 0.5, advantages whitened over the
    rollout (`token_advantages`). A group of one sample per prompt is enough, more are fine.
    """

    group: int = with_default(PolicyOptions, "group", 1)
    gamma: float = option(1.0, "Discount per token.", within=between(0, 1))
    gae_lambda: float = option(
        1.0, "1 for the least bias, 0 for the least variance.", within=between(0, 1)
    )
    whiten: bool = option(True, "Shift and scale advantages over the batch.")
    value_clip: float | None = option(
        0.5, "Clip range of a value around its old one; none: no clip.", within=above(0)
    )


class Optimizers(NamedTuple):
    """The two optimisers, each with its own learning rate."""

    policy: optax.GradientTransformation
    critic: optax.GradientTransformation


@struct.dataclass
class PPOState(TrainState):
    """`TrainState` of the policy, with the critic's parameters and optimiser state as well."""

    critic: dict
    critic_opt_state: Any


@struct.dataclass
class ValueBatch:
    """Holds what the critic learns from: experience; mask, old values, returns `[B, G, R]`."""

    experience: Experience
    mask: jax.Array
    old_values: jax.Array
    returns: jax.Array


def create_ppo_state(
    params: dict, optimizers: Optimizers, seed: int, width: int, agent: str = ""
) -> PPOState:
    """Makes the state before the first step; the critic starts from the policy's parameters.

    `width` is the network's D; agents of one seed draw from streams of their own.
    """
    policy = create_state(params, optimizers.policy, seed, agent)
    critic = init_critic(params, named_key(policy.key, "critic"), width)
    return PPOState(
        **fields(policy), critic=critic, critic_opt_state=optimizers.critic.init(critic)
    )


def ppo_update(
    algorithm: PPOOptions,
    decoder: Decoder,
    optimizers: Optimizers,
    state: PPOState,
    reference: dict | None,
    instruction: Block,
    experience: Experience,
    grammar: Grammar | None = None,
    complete: Complete = all_trained,
    demonstrations: Experience | None = None,
) -> tuple[PPOState, dict[str, Mean]]:
    """Learns from one rollout: `epochs` x `mini_batches` steps of the policy and of the critic.

    Old log-probabilities, old values, reference and advantages are computed once, over the whole
    rollout. Every loss term is divided by counts of its whole mini-batch, so the number of
    micro-batches does not matter.

    Args:
        algorithm: options.
        decoder: the network of the policy; the critic has the same without an output head.
        optimizers: of policy and critic.
        state: the state before; its random key is left alone.
        reference: parameters of the reference policy; needed only where `kl_weight` is not 0.
        instruction: the block above all prompts.
        experience: the rollout.
        grammar: the grammar that sampling was constrained by, if any.
        complete: makes a network's parameters from what is trained, where that is adapters; for
            policy and critic alike.
        demonstrations: as many as the rollout has rows, which the policy makes more likely by the
            same steps.

    Returns:
        The state after, and metrics: those of GRPO and `value_loss`, `value_gradient_norm`,
        `value_not_finite`, `value`, `value_clip_fraction`, `return` and `advantage` (before
        whitening, per token).

    Raises:
        ValueError: the batch does not divide into mini- and micro-batches, or a reference is
            missing.
    """
    statistics = policy_statistics(algorithm, decoder, instruction, grammar)
    old_logp, ref_logp = fixed_logprobs(
        algorithm, statistics, complete(state.params), reference, experience
    )

    def values(critic, part):
        whole = critic | {"decoder": complete(critic["decoder"])}
        return response_values(decoder, whole, (instruction, part.prompt, part.response))

    old_values = map_parts(lambda part: values(state.critic, part), experience, algorithm.parts)
    mask = response_mask(experience, algorithm.mask_truncated)
    penalties: jax.Array | None = None
    metrics_of_penalty: dict[str, Mean] = {}
    if algorithm.penalises_reward:
        assert old_logp is not None and ref_logp is not None  # as `fixed_logprobs` promises
        penalties, metrics_of_penalty = token_penalties(algorithm, old_logp, ref_logp, mask)
    advantages, returns, whole = token_advantages(
        algorithm, net_rewards(experience), penalties, old_values, mask
    )

    likelihood = likelihood_statistics(algorithm, decoder, instruction)

    def step(carry, part):
        (params, opt_state), critic = carry
        actions, outcomes = part
        *policy, metrics = policy_step(
            *(algorithm, statistics, optimizers.policy, params, opt_state, actions, complete),
            likelihood,
        )
        *critic, critic_metrics = critic_step(
            algorithm, values, optimizers.critic, *critic, outcomes
        )
        return (tuple(policy), tuple(critic)), metrics | critic_metrics

    (policy, critic), metrics = run_mini_batches(
        step,
        ((state.params, state.opt_state), (state.critic, state.critic_opt_state)),
        (
            PolicyBatch(experience, mask, advantages, old_logp, ref_logp, demonstrations),
            ValueBatch(experience, mask, old_values, returns),
        ),
        state.order_key(),
        epochs=algorithm.epochs,
        mini_batches=algorithm.mini_batches,
    )
    reward = masked_mean(experience.rewards, experience.valid[:, None])
    after = dataclasses.replace(
        state,
        params=policy[0],
        opt_state=policy[1],
        step=state.step + 1,
        critic=critic[0],
        critic_opt_state=critic[1],
    )
    return after, metrics | metrics_of_penalty | whole | {"reward": reward}


def token_advantages(
    algorithm: PPOOptions,
    rewards: jax.Array,
    penalties: jax.Array | None,
    values: jax.Array,
    mask: jax.Array,
) -> tuple[jax.Array, jax.Array, dict[str, Mean]]:
    """Computes the policy's advantages, and the returns that the critic learns.

    GAE is linear, so the advantage is that of the outcomes plus that of the penalties. Whitening
    scales the former alone and shifts both: like a group's, a penalty is subtracted after
    normalising and never becomes a unit advantage. A rollout whose outcomes are all equal has no
    deviation to divide by; whitened, a constant is nothing and the critic's error would be all, so
    the policy then learns from the penalties alone.

    Args:
        algorithm: options.
        rewards: `[B, G]`, outcomes.
        penalties: `[B, G, R]`, costs of tokens, or None.
        values: `[B, G, R]`, of the critic before the update.
        mask: `[B, G, R]`.

    Returns:
        Advantages and returns `[B, G, R]`, and their means before whitening as metrics.
    """
    estimate = functools.partial(
        generalised_advantages, mask=mask, gamma=algorithm.gamma, gae_lambda=algorithm.gae_lambda
    )
    outcome, returns = estimate(last_token_rewards(rewards, mask), values)
    penalty = jnp.zeros_like(outcome)
    if penalties is not None:
        penalty, _ = estimate(-penalties, jnp.zeros_like(values))
    returns += penalty
    metrics = {
        "return": masked_mean(returns, mask),
        "advantage": masked_mean(outcome + penalty, mask),
    }
    if algorithm.whiten:
        counts = mask.any(-1)
        lowest = jnp.min(jnp.where(counts, rewards, jnp.inf))
        highest = jnp.max(jnp.where(counts, rewards, -jnp.inf))
        outcome = jnp.where(highest > lowest, whiten(outcome, mask), 0.0)
        penalty = centre(penalty, mask)
    return outcome + penalty, returns, metrics


def critic_step(
    algorithm: PPOOptions,
    values: Callable[[dict, Experience], jax.Array],
    optimizer: optax.GradientTransformation,
    params: dict,
    opt_state: Any,
    batch: ValueBatch,
) -> tuple[dict, Any, dict[str, Mean]]:
    """Takes one optimiser step of the critic; returns parameters, state and metrics.

    Args:
        algorithm: options.
        values: function from the critic's parameters and experience to values `[B, G, R]`.
        optimizer: the critic's.
        params: of the critic.
        opt_state: of the optimiser.
        batch: the mini-batch.
    """
    counts = denominators(batch.mask)

    def loss(params, part):
        return value_loss(
            values(params, part.experience),
            part.old_values,
            part.returns,
            part.mask,
            clip=algorithm.value_clip,
            aggregation=algorithm.aggregation,
            denominators=counts,
        )

    gradient, terms = accumulate_gradients(loss, params, batch, algorithm.micro_batches)
    return optimiser_step(optimizer, gradient, terms, params, opt_state, name="value_")
