"""The compiled PPO step: rollout, reward, and update of policy and critic as one XLA program."""

from collections.abc import Callable

import jax

from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.rollout import Rollout
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import AnswerData, ManagerData
from memr1_jax.models.sampler import Sampling
from memr1_jax.rl.metrics import Mean
from memr1_jax.rl.ppo import PPO, Optimizers, PPOState, ppo_update
from memr1_jax.training.step import Frozen, Policy, experience_of


def make_ppo_step(
    policy: Policy, algorithm: PPO, optimizers: Optimizers, *, reward: str = "exact_match"
) -> Callable[..., tuple[PPOState, dict[str, Mean], Rollout]]:
    """Compiles `train_step(state, frozen, tools, data, rows, valid) -> state, metrics, rollout`.

    The same contract as `make_train_step`, with a `PPOState`; the rollout is the same one too.
    """

    def train_step(
        state: PPOState,
        frozen: Frozen,
        tools: Tools,
        data: AnswerData | ManagerData,
        rows: jax.Array,
        valid: jax.Array,
    ):
        rollout = policy.rollout(
            state.params,
            frozen,
            tools,
            data.select(rows, valid),
            jax.random.fold_in(state.key, state.step),
            Sampling.create(algorithm.temperature),
            group=algorithm.group,
            reward=reward,
        )
        state, metrics = ppo_update(
            algorithm,
            policy.decoder,
            optimizers,
            state,
            frozen.reference,
            policy.agent.template.instruction_block,
            experience_of(rollout),
            grammar=None if isinstance(policy.agent, AnswerAgent) else tools.grammar,
        )
        return state, metrics | rollout.metrics, rollout

    return jax.jit(train_step, donate_argnums=0)
