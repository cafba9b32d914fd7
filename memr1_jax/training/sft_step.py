"""The compiled step of supervised fine-tuning on demonstrations.

Best-of-n needs none of its own: it is `compile_step` with `imitation_update`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.demonstrations import Demonstrations
from memr1_jax.agents.manager import MemoryManager
from memr1_jax.agents.rollout import Rollout, answer_prompts, manager_prompts
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import AnswerBatch, ManagerBatch
from memr1_jax.models.decoder import Block
from memr1_jax.models.sampler import Samples
from memr1_jax.rl.imitation import ImitationOptions, imitation_update
from memr1_jax.rl.metrics import Mean, masked_mean
from memr1_jax.rl.update import TrainState
from memr1_jax.training.step import Frozen, Policy, experience_of, joined_metrics


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
    agent: AnswerAgent | MemoryManager,
    tools: Tools,
    batch: AnswerBatch | ManagerBatch,
    response: Block,
) -> Rollout:
    """A rollout of responses `[B, 1, R]` that were not sampled: rewards 1, log-probabilities 0."""
    if isinstance(agent, AnswerAgent):
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
        "memories_dropped": masked_mean(prompts.dropped, batch.valid),
        "prompt_overflow": masked_mean(prompts.overflow, batch.valid),
    }
    prompt = Block(prompts.tokens, prompts.length)
    return Rollout(prompt, samples, rewards, batch.valid, shown, metrics)
