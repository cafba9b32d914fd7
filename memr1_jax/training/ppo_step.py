"""The compiled PPO step: rollout, reward, and update of policy and critic as one XLA program."""

from collections.abc import Callable

from memr1_jax.agents.rollout import Rollout
from memr1_jax.rl.metrics import Mean
from memr1_jax.rl.ppo import Optimizers, PPOOptions, PPOState, ppo_update
from memr1_jax.training.step import Policy, compile_step


def make_ppo_step(
    policy: Policy, algorithm: PPOOptions, optimizers: Optimizers
) -> Callable[..., tuple[PPOState, dict[str, Mean], Rollout]]:
    """Compiles `train_step(state, frozen, tools, data, rows, valid) -> state, metrics, rollout`.

    The same contract as `make_train_step`, with a `PPOState`; the rollout is the same one too.
    """
    return compile_step(ppo_update, policy, algorithm, optimizers)
