"""Supervised fine-tuning: negative log-likelihood of given responses, or of the best sampled ones.

Axis letters: B prompts in a batch, G samples a prompt, R response length.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.options import FINITE, above, option, with_default
from memr1_jax.rl.losses import LossTerms, aggregate, denominators
from memr1_jax.rl.means import Mean, masked_mean
from memr1_jax.rl.minibatches import accumulate_gradients, optimiser_step, run_mini_batches
from memr1_jax.rl.policy import (
    Complete,
    Experience,
    all_trained,
    net_rewards,
    policy_statistics,
    response_mask,
)
from memr1_jax.rl.policy_options import UpdateOptions, check_names
from memr1_jax.rl.trajectories import by_row, returns
from memr1_jax.rl.update import TrainState
from memr1_jax.text.grammar import Grammar

IMITATED = ("all", "best")


@dataclasses.dataclass(frozen=True)
class ImitationOptions(UpdateOptions):
    """Set which samples best-of-n imitates.

    `imitated` "all" learns from every response: behaviour cloning. "best" learns from the one with
    the highest reward of each group, the first of several, if its reward is above `min_reward`:
    best-of-n, also called rejection sampling (RAFT, arXiv 2304.06767). It is no flag, as the
    algorithm says which. `temperature` is that of sampling, `likelihood_temperature` that of the
    likelihood.
    """

    group: int = with_default(UpdateOptions, "group", 1)
    imitated: str = "all"
    min_reward: float = option(
        0.0, "Reward above which the best sample of a group is imitated.", within=FINITE
    )
    likelihood_temperature: float = option(
        1.0,
        "SFT and best-of-n: temperature at which responses are made more likely.",
        within=above(0),
    )

    def __post_init__(self):
        """Refuses names that mean nothing; raises ValueError."""
        super().__post_init__()
        check_names(imitated=(self.imitated, IMITATED))


def kept_samples(algorithm: ImitationOptions, experience: Experience) -> jax.Array:
    """Tells which responses are learned from: `[B, G]` bool."""
    valid, trajectories = experience.valid[:, None], experience.trajectories
    if algorithm.imitated == "all":
        return jnp.broadcast_to(valid, experience.rewards.shape)
    rewards, _ = returns(trajectories, net_rewards(experience), experience.valid)
    best = jnp.arange(rewards.shape[-1]) == jnp.argmax(rewards, axis=-1, keepdims=True)
    return by_row(trajectories, best & (rewards > algorithm.min_reward)) & valid


def imitation_update(
    algorithm: ImitationOptions,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    reference: dict | None,
    instruction: Block,
    experience: Experience,
    grammar: Grammar | None = None,
    complete: Complete = all_trained,
) -> tuple[TrainState, dict[str, Mean]]:
    """Makes the kept responses more likely; takes what `rl.update.update` takes.

    The others are masked, so that shapes stay. A mini-batch where nothing is kept has
    gradient 0; the optimiser still steps, with its weight decay and its moments.

    Args:
        algorithm: options.
        decoder: the policy's network.
        optimizer: from `create_optimizer`.
        state: the state before; its random key is left alone.
        reference: ignored.
        instruction: the block above all prompts.
        experience: the responses; their `logprobs` are not read.
        grammar: the grammar that sampling was constrained by, if any.
        complete: makes the network's parameters from `state.params`, where those are adapters.

    Returns:
        The state after, and the metrics of `optimiser_step`, `nll` and `entropy` in nats per kept
        token; in best-of-n also `kept`, the share of kept responses, and `reward`, of all.

    Raises:
        ValueError: the batch does not divide into mini- and micro-batches.
    """
    del reference
    prompts, parts = len(experience.valid), algorithm.mini_batches * algorithm.micro_batches
    if prompts % parts:
        raise ValueError(f"{prompts} prompts do not divide into {parts} parts.")
    tempered = dataclasses.replace(algorithm, temperature=algorithm.likelihood_temperature)
    statistics = policy_statistics(tempered, decoder, instruction, grammar)
    kept = kept_samples(algorithm, experience)
    mask = response_mask(experience, mask_truncated=False) & kept[..., None]

    def step(carry, batch):
        params, opt_state = carry
        counts = denominators(batch[1])

        def loss(params, part):
            experience, mask = part
            found = statistics(complete(params), experience)
            nll = -found.logprobs
            return LossTerms(
                aggregate(nll, mask, algorithm.aggregation, counts),
                {"nll": masked_mean(nll, mask), "entropy": masked_mean(found.entropy, mask)},
            )

        gradient, terms = accumulate_gradients(loss, params, batch, algorithm.micro_batches)
        *carry, metrics = optimiser_step(optimizer, gradient, terms, params, opt_state)
        return tuple(carry), metrics

    (params, opt_state), metrics = run_mini_batches(
        step,
        (state.params, state.opt_state),
        (experience, mask),
        state.order_key(),
        epochs=algorithm.epochs,
        mini_batches=algorithm.mini_batches,
    )
    if algorithm.imitated == "best":  # else nothing is judged
        rewards, valid = returns(experience.trajectories, experience.rewards, experience.valid)
        metrics |= {
            "kept": masked_mean(kept, experience.valid[:, None]),
            "reward": masked_mean(rewards, valid[:, None]),
        }
    after = dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1)
    return after, metrics
