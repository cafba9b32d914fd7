"""From a rollout to new weights: reference pass, advantages, micro-batched gradient, optimiser.

Axis letters: B prompts in a batch, G samples a prompt, P prompt length, R response length.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.logprobs import response_statistics
from memr1_jax.rl.advantages import (
    group_advantages,
    informative_groups,
    last_token_rewards,
)
from memr1_jax.rl.kl import kl_in_reward
from memr1_jax.rl.losses import (
    LossTerms,
    denominators,
    entropy_bonus,
    kl_loss,
    policy_loss,
)
from memr1_jax.rl.metrics import Mean, masked_mean
from memr1_jax.text.grammar import Grammar, allowed, states_along


@dataclasses.dataclass(frozen=True)
class GRPO:
    """Options of the algorithm; static under `jit`.

    Defaults follow Memory-R1 where it speaks (temperature 1, group of 5 seen in its run names) and
    verl otherwise. `kl_placement` is "loss" (with estimator `kl_kind`) or "reward" (k1).
    """

    group: int = 5
    temperature: float = 1.0
    advantage: str = "grpo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    aggregation: str = "token-mean"
    kl_weight: float = 0.001
    kl_kind: str = "k3"
    kl_placement: str = "reward"
    entropy_weight: float = 0.0
    mask_truncated: bool = False
    micro_batches: int = 1
    logit_chunk: int = 128


@struct.dataclass
class TrainState:
    """All that an update changes: float32 parameters, optimiser state, step `[]`, random key."""

    params: dict
    opt_state: Any
    step: jax.Array
    key: jax.Array


@struct.dataclass
class Experience:
    """The part of a rollout that is learned from; leaves `[B, ...]`.

    `logprobs` `[B, G, R]` are the sampler's; `rewards` `[B, G]`; `stopped` `[B, G]`; `valid` `[B]`;
    `shown` `[B]` bounds the ids that a grammar allows.
    """

    prompt: Block
    response: Block
    logprobs: jax.Array
    rewards: jax.Array
    stopped: jax.Array
    valid: jax.Array
    shown: jax.Array


def create_state(params: dict, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step."""
    return TrainState(params, optimizer.init(params), jnp.int32(0), jax.random.key(seed))


def create_optimizer(
    learning_rate: float, *, warmup_steps: int = 0, weight_decay: float = 0.01, clip: float = 1.0
) -> optax.GradientTransformation:
    """AdamW with global-norm clipping; the rate climbs linearly, then stays (verl's defaults)."""
    schedule = learning_rate
    if warmup_steps:
        # Starts one notch above zero, so that no step is wasted.
        schedule = optax.linear_schedule(
            learning_rate / (warmup_steps + 1), learning_rate, warmup_steps
        )
    return optax.chain(
        optax.clip_by_global_norm(clip), optax.adamw(schedule, weight_decay=weight_decay)
    )


def response_mask(experience: Experience, mask_truncated: bool) -> jax.Array:
    """`[B, G, R]`: 1 up to and including the end token; 0 for padding rows of the batch."""
    length = experience.response.length
    mask = jnp.arange(experience.response.tokens.shape[-1]) < length[..., None]
    mask &= experience.valid[:, None, None]
    return mask & experience.stopped[..., None] if mask_truncated else mask


def update(
    algorithm: GRPO,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    reference: dict | None,
    instruction: Block,
    experience: Experience,
    grammar: Grammar | None = None,
) -> tuple[TrainState, dict[str, Mean]]:
    """One optimiser step on one rollout.

    As exactly one update follows a rollout, the old log-probabilities are those of the update
    itself: the ratio is 1 in value and carries the gradient. Micro-batches are slices of prompts;
    every loss term is divided by counts of the whole batch, so their number does not matter.

    Args:
      algorithm: options.
      decoder: the policy's network.
      optimizer: from `create_optimizer`.
      state: the state before; its random key is left alone.
      reference: parameters of the reference policy; needed only where `kl_weight` is not 0.
      instruction: the block above all prompts.
      experience: the rollout.
      grammar: the grammar that sampling was constrained by, if any.

    Raises:
      ValueError: the batch does not divide into micro-batches, or a reference is missing.
    """
    prompts = experience.valid.shape[0]
    if prompts % algorithm.micro_batches:
        raise ValueError(f"{prompts} prompts do not divide into {algorithm.micro_batches} parts.")
    if algorithm.kl_weight and reference is None:
        raise ValueError("A KL weight above 0 needs the parameters of a reference policy.")
    mask = response_mask(experience, algorithm.mask_truncated)

    def statistics(params, part):
        return _statistics(algorithm, decoder, params, instruction, part, grammar)

    ref_logp = jnp.zeros_like(experience.logprobs)
    scores = experience.rewards
    metrics = {}
    if algorithm.kl_weight:
        ref_logp = _unsplit(
            jax.lax.map(
                lambda part: statistics(reference, part).logprobs,
                _split(experience, algorithm.micro_batches),
            )
        )
    if algorithm.kl_weight and algorithm.kl_placement == "reward":
        rewards = last_token_rewards(experience.rewards, mask)
        scores = kl_in_reward(
            rewards, experience.logprobs, ref_logp, mask, algorithm.kl_weight
        ).sum(-1)
        metrics["kl"] = masked_mean(experience.logprobs - ref_logp, mask)
    advantages = group_advantages(scores, algorithm.advantage)
    counts = denominators(mask)

    def loss(params, part, ref_logp, advantages, mask):
        found = statistics(params, part)
        options = {"aggregation": algorithm.aggregation, "denominators": counts}
        terms = policy_loss(
            found.logprobs,
            found.logprobs,
            advantages[..., None],
            mask,
            clip_low=algorithm.clip_low,
            clip_high=algorithm.clip_high,
            dual_clip=algorithm.dual_clip,
            **options,
        )
        terms = terms.add(
            entropy_bonus(found.entropy, mask, coefficient=algorithm.entropy_weight, **options)
        )
        if algorithm.kl_weight and algorithm.kl_placement == "loss":
            terms = terms.add(
                kl_loss(
                    found.logprobs,
                    ref_logp,
                    mask,
                    kind=algorithm.kl_kind,
                    coefficient=algorithm.kl_weight,
                    **options,
                )
            )
        gap = jnp.abs(found.logprobs - part.logprobs)
        terms = terms.add(LossTerms(jnp.float32(0), {"sampler_gap": masked_mean(gap, mask)}))
        return terms.loss, terms

    def accumulate(total, part):
        (_, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.params, *part)
        return jax.tree.map(jnp.add, total, (gradient, terms)), None

    parts = _split((experience, ref_logp, advantages, mask), algorithm.micro_batches)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(
        lambda part: jax.value_and_grad(loss, has_aux=True)(state.params, *part), first
    )
    (_, terms_shape), gradient_shape = shapes
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (gradient_shape, terms_shape))
    (gradient, terms), _ = jax.lax.scan(accumulate, zeros, parts)

    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    valid = experience.valid
    metrics |= terms.metrics
    metrics |= {
        "loss": _once(terms.loss),
        "gradient_norm": _once(optax.global_norm(gradient)),
        "reward": masked_mean(experience.rewards, valid[:, None]),
        "informative_groups": masked_mean(informative_groups(experience.rewards), valid),
    }
    return state.replace(params=params, opt_state=opt_state, step=state.step + 1), metrics


def _statistics(algorithm, decoder, params, instruction, part, grammar):
    options = {}
    if grammar is not None:
        tokens = part.response.tokens
        shape = tokens.shape
        remaining = jnp.broadcast_to(shape[-1] - jnp.arange(shape[-1]), shape)
        shown = jnp.broadcast_to(part.shown[:, None, None], shape)
        options = {
            "allowed": lambda state, remaining, shown: allowed(grammar, state, remaining, shown),
            "allowed_inputs": (states_along(grammar, tokens, shown[..., 0]), remaining, shown),
        }
    return response_statistics(
        decoder,
        params,
        (instruction, part.prompt, part.response),
        algorithm.temperature,
        chunk=algorithm.logit_chunk,
        **options,
    )


def _split(tree, parts):
    """`[B, ...]` leaves to `[parts, B / parts, ...]`."""
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), tree)


def _unsplit(tree):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _once(value):
    return Mean(jnp.asarray(value, jnp.float32), jnp.float32(1))
