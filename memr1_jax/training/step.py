"""The compiled step: rollout, memory edits, retrieval, reward and update as one XLA program.

    rollout(policy, frozen, batch, key) -> Rollout
    update(state, rollout)              -> state, metrics
    train_step = jit(update . rollout, donate state)

The two agents differ only in the rollout.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import struct

from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.manager import MemoryManager
from memr1_jax.agents.rollout import (
    FrozenAnswerer,
    Rollout,
    answer_rollout,
    manager_rollout,
)
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import AnswerBatch, AnswerData, ManagerBatch, ManagerData
from memr1_jax.models.decoder import Decoder
from memr1_jax.models.sampler import Sampling
from memr1_jax.parallel.activations import gather_weights
from memr1_jax.rl.metrics import Mean
from memr1_jax.rl.update import GRPO, Experience, TrainState, update


@struct.dataclass
class Frozen:
    """Weights that a step reads but does not change.

    `reference` of the KL penalty, None where its weight is 0; `answerer`, the Answer Agent that
    judges a manager's edits, None in its own training.
    """

    reference: dict | None
    answerer: dict | None


@dataclasses.dataclass(frozen=True)
class Policy:
    """The agent in training and its network; static under `jit`."""

    agent: AnswerAgent | MemoryManager
    decoder: Decoder
    answerer: FrozenAnswerer | None = None  # for a manager

    def rollout(
        self,
        params: dict,
        frozen: Frozen,
        tools: Tools,
        batch: AnswerBatch | ManagerBatch,
        key: jax.Array,
        sampling: Sampling,
        **options,
    ) -> Rollout:
        """Samples from the policy with its arithmetic's own number format."""
        params = _for_rollout(params, self.decoder.dtype)
        if isinstance(self.agent, AnswerAgent):
            return answer_rollout(
                self.agent, self.decoder, params, tools, batch, key, sampling, **options
            )
        answer_params = _for_rollout(frozen.answerer, self.answerer.decoder.dtype)
        return manager_rollout(
            self.agent,
            self.decoder,
            params,
            self.answerer,
            answer_params,
            tools,
            batch,
            key,
            sampling,
            **options,
        )


def make_train_step(
    policy: Policy,
    algorithm: GRPO,
    optimizer: optax.GradientTransformation,
    *,
    reward: str = "exact_match",
) -> Callable[..., tuple[TrainState, dict[str, Mean], Rollout]]:
    """Compiles `train_step(state, frozen, tools, data, rows, valid) -> state, metrics, rollout`.

    `data` stays on the device; `rows` `[B]` picks the batch, `valid` `[B]` marks padding. The state
    is donated. Step `i` samples from `fold_in(state.key, i)`, so that a resumed run draws
    what the uninterrupted one would have drawn.
    """
    return compile_step(update, policy, algorithm, optimizer, reward)


def compile_step(
    update: Callable, policy: Policy, algorithm: Any, optimizer: Any, reward: str
) -> Callable:
    """Compiles rollout and `update` into one program; algorithms differ in `update` alone.

    `update` takes what `rl.update.update` takes, with its own options, optimiser and state.
    """

    def train_step(
        state: TrainState,
        frozen: Frozen,
        tools: Tools,
        data: AnswerData | ManagerData,
        rows: jax.Array,
        valid: jax.Array,
    ):
        batch = data.select(rows, valid)
        key = jax.random.fold_in(state.key, state.step)
        rollout = policy.rollout(
            state.params,
            frozen,
            tools,
            batch,
            key,
            Sampling.create(algorithm.temperature),
            group=algorithm.group,
            reward=reward,
        )
        state, metrics = update(
            algorithm,
            policy.decoder,
            optimizer,
            state,
            frozen.reference,
            policy.agent.template.instruction_block,
            experience_of(rollout),
            grammar=None if isinstance(policy.agent, AnswerAgent) else tools.grammar,
        )
        return state, metrics | rollout.metrics, rollout

    return jax.jit(train_step, donate_argnums=0)


def experience_of(rollout: Rollout) -> Experience:
    """What the update reads of a rollout."""
    samples = rollout.samples
    return Experience(
        prompt=rollout.prompt,
        response=samples.block,
        logprobs=samples.logprobs,
        rewards=rollout.rewards,
        stopped=samples.stopped,
        valid=rollout.valid,
        shown=rollout.shown,
    )


def _for_rollout(params, dtype):
    """Cast, and gathered over fsdp, once: a decode loop would do it again for every token."""
    return gather_weights(jax.tree.map(lambda x: x.astype(dtype), params), dtype)
