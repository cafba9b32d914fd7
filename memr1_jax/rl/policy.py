"""Shared by GRPO and PPO: experience, and the policy's part of an update.

Axis letters: B prompts in a batch, G samples a prompt, P prompt length, R response length.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.logprobs import TokenStatistics, response_statistics
from memr1_jax.rl.kl import kl_in_reward
from memr1_jax.rl.losses import (
    Denominators,
    LossTerms,
    aggregate,
    denominators,
    entropy_bonus,
    kl_loss,
    policy_loss,
    sampler_weights,
)
from memr1_jax.rl.means import Mean, masked_mean
from memr1_jax.rl.minibatches import accumulate_gradients, map_parts, optimiser_step
from memr1_jax.rl.policy_options import PolicyOptions, UpdateOptions
from memr1_jax.rl.trajectories import Trajectories, by_step, returns
from memr1_jax.text.grammar import Grammar, allowed, states_along


@struct.dataclass
class Experience:
    """Holds the part of a rollout that is learned from; leaves `[B, ...]`.

    `logprobs` `[B, G, R]` are the sampler's; `rewards` `[B, G]`; `stopped` `[B, G]`; `valid` `[B]`;
    `shown` `[B]` bounds the ids that a grammar allows. Where rows are steps of `trajectories`, G is
    1, and `rewards` are those of the whole trajectory at each of its valid steps. `costs` `[B, G]`
    likewise, or None: what is subtracted after outcomes were compared, in units of the advantage.
    `weights` `[B, G]`, or None: how much a sample counts, 1 in the mean of a group; see
    `agents/stratified.py`.
    """

    prompt: Block
    response: Block
    logprobs: jax.Array
    rewards: jax.Array
    stopped: jax.Array
    valid: jax.Array
    shown: jax.Array
    trajectories: Trajectories | None = None
    costs: jax.Array | None = None
    weights: jax.Array | None = None


@struct.dataclass
class PolicyBatch:
    """Experience and what else the policy's loss needs; leaves `[B, ...]`.

    `mask` `[B, G, R]`; `advantages` `[B, G, R]` or `[B, G, 1]`; `old_logp` `[B, G, R]` from before
    the update, unused where a single step follows: its own then replace them, so that the
    ratio is 1 in value and carries the gradient; `ref_logp` `[B, G, R]` or None without KL.
    `demonstrations` `[B, 1, R]` are made more likely as well.
    """

    experience: Experience
    mask: jax.Array
    advantages: jax.Array
    old_logp: jax.Array | None
    ref_logp: jax.Array | None
    demonstrations: Experience | None = None


Statistics = Callable[[dict, Experience], TokenStatistics]
Complete = Callable[[dict], dict]  # from what is trained to all parameters of the network


def net_rewards(experience: Experience) -> jax.Array:
    """Returns rewards less costs `[B, G]`, for ways of learning that do not compare a group."""
    return experience.rewards if experience.costs is None else experience.rewards - experience.costs


def all_trained(params: dict) -> dict:
    """Returns `params`: the `Complete` of full fine-tuning, which trains the whole network."""
    return params


def response_mask(experience: Experience, mask_truncated: bool) -> jax.Array:
    """Masks `[B, G, R]`: 1 up to and including the end token; 0 for padding rows of the batch."""
    length = experience.response.length
    mask = jnp.arange(experience.response.tokens.shape[-1]) < length[..., None]
    mask &= experience.valid[:, None, None]
    return mask & experience.stopped[..., None] if mask_truncated else mask


def policy_statistics(
    options: UpdateOptions, decoder: Decoder, instruction: Block, grammar: Grammar | None
) -> Statistics:
    """Maps parameters and experience to `TokenStatistics`, under the grammar if any."""

    def statistics(params, experience):
        prompt, response, shown = experience.prompt, experience.response, experience.shown
        constraint = {}
        if grammar is not None:
            constraint = under_grammar(grammar, response.tokens, shown, response.tokens.shape[-1])
        return response_statistics(
            decoder,
            params,
            (instruction, prompt, response),
            options.temperature,
            chunk=options.logit_chunk,
            **constraint,
        )

    return statistics


def under_grammar(
    grammar: Grammar, tokens: jax.Array, shown: jax.Array, most: int
) -> dict[str, Any]:
    """Returns the arguments of `token_statistics` that restrict it to a grammar.

    Args:
        grammar: that sampling was constrained by.
        tokens: responses `[B, G, R]` or their first tokens.
        shown: `[B]`, which bounds the ids that a response may name.
        most: tokens of a whole response.
    """
    shape = tokens.shape
    remaining = jnp.broadcast_to(most - jnp.arange(shape[-1]), shape)
    shown = jnp.broadcast_to(shown[:, None, None], shape)
    states = states_along(grammar, tokens, shown[..., 0])
    return {
        "allowed": lambda state, remaining, shown: allowed(grammar, state, remaining, shown),
        "allowed_inputs": (states, remaining, shown),
    }


def fixed_logprobs(
    options: PolicyOptions,
    statistics: Statistics,
    params: dict,
    reference: dict | None,
    experience: Experience,
) -> tuple[jax.Array | None, jax.Array | None]:
    """Computes the log-probabilities that an update keeps fixed: the old and the reference's.

    Both by the trainer's arithmetic, so that they are equal where the weights are.

    Returns:
        `old_logp` and `ref_logp` `[B, G, R]`; what is not needed is None and costs nothing.

    Raises:
        ValueError: the batch does not divide into parts, or a reference is missing.
    """
    prompts = experience.valid.shape[0]
    if prompts % options.parts:
        raise ValueError(f"{prompts} prompts do not divide into {options.parts} parts.")
    if options.kl_weight and reference is None:
        raise ValueError("A KL weight above 0 needs the parameters of a reference policy.")

    def logprobs(params):
        return map_parts(lambda part: statistics(params, part).logprobs, experience, options.parts)

    needed = options.penalises_reward or not options.single_step
    return logprobs(params) if needed else None, logprobs(reference) if options.kl_weight else None


def token_penalties(
    options: PolicyOptions, old_logp: jax.Array, ref_logp: jax.Array, mask: jax.Array
) -> tuple[jax.Array, dict[str, Mean]]:
    """Computes what the tokens `[B, G, R]` cost where the KL penalty is in the reward.

    Returns:
        The costs, in units of reward and 0 on masked tokens, and the metric `kl`, nats a token.
    """
    costs = -kl_in_reward(jnp.zeros_like(old_logp), old_logp, ref_logp, mask, options.kl_weight)
    return costs, {"kl": masked_mean(old_logp - ref_logp, mask)}


def group_penalties(
    options: PolicyOptions,
    experience: Experience,
    old_logp: jax.Array | None,
    ref_logp: jax.Array | None,
) -> tuple[jax.Array | None, dict[str, Mean]]:
    """Adds costs and the KL penalty in the reward of each response, or trajectory over all steps.

    Responses that the loss leaves out are penalised like all others: their group is compared with
    what they earned, and so with what they cost.

    Returns:
        Penalties `[B, G]` and their metrics; None and none where the penalty is elsewhere.
    """
    trajectories, costs = experience.trajectories, None
    if experience.costs is not None:
        costs, _ = returns(trajectories, experience.costs, experience.valid)
    if not options.penalises_reward:
        return costs, {}
    assert old_logp is not None and ref_logp is not None  # as `fixed_logprobs` promises
    mask = response_mask(experience, mask_truncated=False)
    of_tokens, metrics = token_penalties(options, old_logp, ref_logp, mask)
    penalties = by_step(trajectories, of_tokens.sum(-1)).sum(-1)
    return penalties if costs is None else penalties + costs, metrics


def policy_terms(
    options: PolicyOptions, found: TokenStatistics, batch: PolicyBatch, counts: Denominators
) -> LossTerms:
    """Adds surrogate, entropy and KL of a part of a mini-batch with the counts of the whole."""
    mask, sampled = batch.mask, batch.experience.logprobs
    old_logp = found.logprobs if options.single_step else batch.old_logp
    assert old_logp is not None  # as `fixed_logprobs` promises
    aggregation = options.aggregation
    counted: jax.Array | float = 1.0
    if batch.experience.weights is not None:
        counted = batch.experience.weights[..., None]
    weights = counted
    if options.sampler_cap is not None:
        weights *= sampler_weights(old_logp, sampled, mask, options.sampler_cap)
    terms = policy_loss(
        found.logprobs,
        old_logp,
        batch.advantages,
        mask,
        clip_low=options.clip_low,
        clip_high=options.clip_high,
        dual_clip=options.dual_clip,
        ratio=options.ratio,
        weights=weights,
        aggregation=aggregation,
        denominators=counts,
    )
    entropy = found.entropy
    if not options.entropy_weight:  # a metric then, for which logits need no second gradient
        entropy = jax.lax.stop_gradient(entropy)
    weight = options.entropy_weight
    terms = terms.add(
        entropy_bonus(
            entropy,
            mask,
            coefficient=weight,
            weights=counted,
            aggregation=aggregation,
            denominators=counts,
        )
    )
    if options.kl_weight and options.kl_placement == "loss":
        assert batch.ref_logp is not None
        terms = terms.add(
            kl_loss(
                found.logprobs,
                batch.ref_logp,
                mask,
                kind=options.kl_kind,
                coefficient=options.kl_weight,
                weights=counted,
                aggregation=aggregation,
                denominators=counts,
            )
        )
    gap = jnp.abs(old_logp - sampled)
    return terms.add(LossTerms(jnp.float32(0), {"sampler_gap": masked_mean(gap, mask)}))


def likelihood_statistics(
    options: PolicyOptions, decoder: Decoder, instruction: Block
) -> Statistics:
    """Maps parameters and demonstrations to `TokenStatistics` at temperature 1.

    No grammar applies: the form of the output is learned too.
    """
    return policy_statistics(
        dataclasses.replace(options, temperature=1.0), decoder, instruction, None
    )


def demonstration_loss(
    options: PolicyOptions, found: TokenStatistics, mask: jax.Array, counts: Denominators
) -> LossTerms:
    """Weighs the negative log-likelihood of demonstrations; its metric is `demonstration_nll`."""
    loss = aggregate(-found.logprobs, mask, options.aggregation, counts)
    metrics = {"demonstration_nll": masked_mean(-found.logprobs, mask)}
    return LossTerms(options.demonstration_weight * loss, metrics)


def policy_step(
    options: PolicyOptions,
    statistics: Statistics,
    optimizer: optax.GradientTransformation,
    params: dict,
    opt_state: Any,
    batch: PolicyBatch,
    complete: Complete = all_trained,
    likelihood: Statistics | None = None,
) -> tuple[dict, Any, dict[str, Mean]]:
    """Takes one optimiser step on a mini-batch; returns parameters, state and metrics.

    `likelihood`, from `likelihood_statistics`, is of the demonstrations, where there are any.
    """
    counts = denominators(batch.mask)
    if batch.demonstrations is not None:
        shown_counts = denominators(response_mask(batch.demonstrations, mask_truncated=False))

    def loss(params, part):
        network = complete(params)
        terms = policy_terms(options, statistics(network, part.experience), part, counts)
        if part.demonstrations is None:
            return terms
        assert likelihood is not None
        mask = response_mask(part.demonstrations, mask_truncated=False)
        found = likelihood(network, part.demonstrations)
        return terms.add(demonstration_loss(options, found, mask, shown_counts))

    gradient, terms = accumulate_gradients(loss, params, batch, options.micro_batches)
    return optimiser_step(optimizer, gradient, terms, params, opt_state)
