"""The compiled step: rollout, memory edits, retrieval, reward and update as one XLA program.

    rollout(policy, frozen, batch, key) -> Rollout
    update(state, rollout)              -> state, metrics
    train_step = jit(update . rollout, donate state)

The two agents differ only in the rollout. Supervised fine-tuning has a step of its own, in which
demonstrations take the place of a rollout; best-of-n is `compile_step` with `imitation_update`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.consult import FrozenAnswerer, Marking
from memr1_jax.agents.demonstrations import Demonstrations, WithDemonstrations
from memr1_jax.agents.episode_rollout import HorizonOptions, episode_rollout
from memr1_jax.agents.extractor import FactExtractor, extractor_prompts
from memr1_jax.agents.extractor_lessons import ExtractorBatch
from memr1_jax.agents.extractor_rollout import FrozenManager, extractor_rollout
from memr1_jax.agents.judge import Judge
from memr1_jax.agents.manager import MemoryManager
from memr1_jax.agents.resampling import most_informative, remembered, rollout_in_parts
from memr1_jax.agents.reward import RewardOptions
from memr1_jax.agents.rollout import (
    Rollout,
    answer_prompts,
    answer_rollout,
    manager_prompts,
    manager_rollout,
)
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import (
    AnswerBatch,
    AnswerData,
    EpisodeBatch,
    EpisodeData,
    ManagerBatch,
    ManagerData,
)
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.lora import join
from memr1_jax.models.sampler import Samples, Sampling, rollout_weights
from memr1_jax.rl.imitation import ImitationOptions, imitation_update
from memr1_jax.rl.means import Mean, masked_mean
from memr1_jax.rl.update import Experience, TrainState, WeighedState


@struct.dataclass
class Frozen:
    """Weights that a step reads but does not change, in the formats of `models/precision.py`.

    With adapters `backbone` holds the base model's parameters, which the agents, the reference and
    the critic share, and the other fields hold adapters: `{}` for the backbone as it is. In full
    fine-tuning `backbone` is None, and the other fields hold whole networks.

    `reference` of the KL penalty, None where its weight is 0; `answerer`, the Answer Agent that
    judges a manager's edits, None in its own training; `judge`, None unless it gives the reward. An
    answerer or a judge of another base model is always whole, as its static part says. `manager`,
    which edits by an extractor's facts, None in the training of others.
    """

    reference: dict | None
    answerer: dict | None
    backbone: dict | None = None
    judge: dict | None = None
    manager: dict | None = None


@dataclasses.dataclass(frozen=True)
class Policy:
    """The agent in training and its network; static under `jit`."""

    agent: AnswerAgent | MemoryManager | FactExtractor
    decoder: Decoder
    answerer: FrozenAnswerer | None = None  # for a manager or an extractor
    manager: FrozenManager | None = None  # for an extractor
    reward: RewardOptions = RewardOptions()
    judge: Judge | None = None
    horizon: HorizonOptions | None = None  # for a manager that learns from episodes
    adapter_scale: float = 1.0  # alpha / rank
    int8_rollout: bool = False  # samples are drawn with weights of `models/int8.py`

    def complete(self, frozen: Frozen, params: dict) -> dict:
        """Returns all parameters of a network from those that are trained; see `Frozen`."""
        if frozen.backbone is None:
            return params
        return join(frozen.backbone, params, self.adapter_scale)

    def rollout(
        self,
        params: dict,
        frozen: Frozen,
        tools: Tools,
        batch: AnswerBatch | ManagerBatch | EpisodeBatch,
        key: jax.Array,
        sampling: Sampling,
        **options,
    ) -> Rollout:
        """Samples from the policy with its arithmetic's own number format."""
        whole = self.complete(frozen, params)
        params = rollout_weights(whole, self.decoder.dtype, self.int8_rollout)
        judge_params = None
        if self.judge is not None:
            judge_params = self._frozen_network(frozen, frozen.judge, self.judge)
        options["marking"] = Marking(self.reward, self.judge, judge_params)
        if isinstance(self.agent, AnswerAgent):
            return answer_rollout(
                self.agent, self.decoder, params, tools, batch, key, sampling, **options
            )
        answer_params = self._frozen_network(frozen, frozen.answerer, self.answerer)
        if isinstance(self.agent, FactExtractor):
            manager_params = self._frozen_network(frozen, frozen.manager, self.manager)
            return extractor_rollout(
                *(self.agent, self.decoder, params, self.manager, manager_params),
                *(self.answerer, answer_params, tools, batch, key, sampling),
                **options,
            )
        arguments = (self.agent, self.decoder, params, self.answerer, answer_params)
        arguments = (*arguments, tools, batch, key, sampling)
        if self.horizon is not None:
            return episode_rollout(self.horizon, *arguments, **options).rollout
        return manager_rollout(*arguments, **options)

    def _frozen_network(self, frozen, params, owner):
        if "embed" not in params:  # adapters, or nothing: the backbone as it is
            params = self.complete(frozen, params)
        return rollout_weights(params, owner.decoder.dtype)


def compile_step(update: Callable, policy: Policy, algorithm: Any, optimizer: Any) -> Callable:
    """Compiles `train_step(state, frozen, tools, data, rows, valid) -> state, metrics, rollout`.

    Algorithms differ in `update` alone, which takes what `rl.update.update` takes, with its own
    options, optimiser and state. `data` stays on the device; `rows` `[B]` picks the batch, `valid`
    `[B]` marks padding. The state is donated. Samples and demonstrations of a step depend on the
    state's key and step alone, so that a resumed run draws what the uninterrupted one would have
    drawn. With `oversample` K there are K times as many rows as are learned from, see
    `agents/resampling.py`.
    """
    oversample = getattr(algorithm, "oversample", 1)

    def train_step(
        state: TrainState,
        frozen: Frozen,
        tools: Tools,
        data: AnswerData | ManagerData | EpisodeData | WithDemonstrations,
        rows: jax.Array,
        valid: jax.Array,
    ):
        drawn = {}
        if isinstance(policy.agent, MemoryManager) and getattr(algorithm, "stratified", False):
            drawn = {"stratified": True, "floor": algorithm.stratified_floor}

        def rollout_of(rows, valid, key):
            return policy.rollout(
                state.params,
                frozen,
                tools,
                data.select(rows, valid),
                key,
                Sampling.create(algorithm.temperature),
                group=algorithm.group,
                **drawn,
            )

        if oversample == 1:
            rollout = whole = rollout_of(rows, valid, state.rollout_key())
        else:
            batch = len(rows) // oversample
            whole = rollout_in_parts(rollout_of, rows, valid, state.rollout_key(), batch)
            rollout = most_informative(whole, batch)
        if isinstance(state, WeighedState):
            odds = remembered(state.odds, rows, valid, whole, algorithm.flat_odds)
            state = state.replace(odds=odds)
        shown = {}
        if isinstance(data, WithDemonstrations):
            picked = data.draw(state.demonstration_key(), len(rollout.valid))
            found = demonstrate(policy.agent, tools, *picked)
            shown["demonstrations"] = experience_of(found)
        complete = functools.partial(policy.complete, frozen)
        reference = None if frozen.reference is None else complete(frozen.reference)
        state, metrics = update(
            algorithm,
            policy.decoder,
            optimizer,
            state,
            reference,
            policy.agent.template.instruction_block,
            experience_of(rollout),
            grammar=tools.grammar if isinstance(policy.agent, MemoryManager) else None,
            complete=complete,
            **shown,
        )
        return state, joined_metrics(metrics, rollout.metrics), rollout

    return jax.jit(train_step, donate_argnums=0)


def make_sft_step(
    policy: Policy, algorithm: ImitationOptions, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, dict[str, Mean], Rollout]]:
    """Compiles `train_step(state, frozen, tools, data, rows, valid) -> state, metrics, rollout`.

    The contract of `compile_step`, with `Demonstrations` as data and their responses in the
    rollout. No grammar applies: the form of the output is learned too.
    """

    def train_step(
        state: TrainState,
        frozen: Frozen,
        tools: Tools,
        data: Demonstrations,
        rows: jax.Array,
        valid: jax.Array,
    ):
        rollout = demonstrate(policy.agent, tools, *data.select(rows, valid))
        state, metrics = imitation_update(
            algorithm,
            policy.decoder,
            optimizer,
            state,
            None,
            policy.agent.template.instruction_block,
            experience_of(rollout),
            complete=functools.partial(policy.complete, frozen),
        )
        return state, joined_metrics(metrics, rollout.metrics), rollout

    return jax.jit(train_step, donate_argnums=0)


def demonstrate(
    agent: AnswerAgent | MemoryManager | FactExtractor,
    tools: Tools,
    batch: AnswerBatch | ManagerBatch | ExtractorBatch,
    response: Block,
) -> Rollout:
    """Makes a rollout of responses `[B, 1, R]` not sampled: rewards 1, log-probabilities 0."""
    if isinstance(agent, FactExtractor):
        prompts = extractor_prompts(agent, batch.turns)
        shown = jnp.zeros_like(prompts.length)
    elif isinstance(agent, AnswerAgent):
        prompts = answer_prompts(agent, tools, batch)
        shown = jnp.zeros_like(prompts.length)
    else:
        prompts = manager_prompts(agent, tools, batch)
        shown = prompts.shown
    rewards = jnp.ones(response.length.shape, jnp.float32)
    logprobs = jnp.zeros(response.tokens.shape, jnp.float32)
    samples = Samples(response.tokens, response.length, logprobs, rewards > 0)
    metrics = {
        "response_length": masked_mean(response.length, batch.valid[:, None]),
    }
    if not isinstance(agent, FactExtractor):
        metrics["memories_dropped"] = masked_mean(prompts.dropped, batch.valid)
        metrics["prompt_overflow"] = masked_mean(prompts.overflow, batch.valid)
    prompt = Block(prompts.tokens, prompts.length)
    return Rollout(prompt, samples, rewards, batch.valid, shown, metrics)


def joined_metrics(of_update: dict[str, Mean], of_rollout: dict[str, Mean]) -> dict[str, Mean]:
    """Joins the metrics of a step; ValueError where one would hide another of its name."""
    if shared := of_update.keys() & of_rollout.keys():
        raise ValueError(f"Update and rollout both have metrics named {sorted(shared)}.")
    return of_update | of_rollout


def experience_of(rollout: Rollout) -> Experience:
    """Returns the part of a rollout that the update reads."""
    samples = rollout.samples
    return Experience(
        prompt=rollout.prompt,
        response=samples.block,
        logprobs=samples.logprobs,
        rewards=rollout.rewards,
        stopped=samples.stopped,
        valid=rollout.valid,
        shown=rollout.shown,
        trajectories=rollout.trajectories,
        costs=rollout.costs,
        weights=rollout.weights,
    )
