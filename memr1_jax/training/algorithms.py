"""From options to a way of learning: the algorithm's options, its optimiser, state and update.

GRPO, PPO and best-of-n differ in these alone; supervised fine-tuning also has data of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from memr1_jax.rl.imitation import imitation_update
from memr1_jax.rl.ppo import Optimizers, create_ppo_state, ppo_update
from memr1_jax.rl.update import TrainState, create_optimizer, create_state, update
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.sft_step import make_sft_step
from memr1_jax.training.step import Policy, compile_step


@dataclasses.dataclass(frozen=True)
class Learner:
    """One way of learning.

    `create_state(params, seed, width)` makes the state before the first step from the parameters
    that are trained and the network's width D; `make_step(policy)` compiles the train step.
    """

    algorithm: Any
    create_state: Callable[[dict, int, int], TrainState]
    make_step: Callable[[Policy], Callable]


def build_learner(options: ExperimentConfig) -> Learner:
    """The way of learning that `options.algorithm` names."""
    optimizer = create_optimizer(
        options.learning_rate,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        clip=options.gradient_clip,
    )

    def state(params, seed, width):
        del width
        return create_state(params, optimizer, seed)

    if options.algorithm == "grpo":
        return _learner(options.policy, update, optimizer, state)
    if options.algorithm == "ppo":
        critic = create_optimizer(
            options.critic_learning_rate,
            warmup_steps=options.critic_warmup_steps,
            weight_decay=options.weight_decay,
            clip=options.gradient_clip,
        )
        optimizers = Optimizers(optimizer, critic)
        return _learner(
            options.policy,
            ppo_update,
            optimizers,
            lambda params, seed, width: create_ppo_state(params, optimizers, seed, width),
        )
    if options.algorithm == "best_of_n":
        best = dataclasses.replace(options.policy, imitated="best")
        return _learner(best, imitation_update, optimizer, state)
    return Learner(
        options.policy, state, lambda policy: make_sft_step(policy, options.policy, optimizer)
    )


def _learner(algorithm, update, optimizer, state):
    return Learner(
        algorithm, state, lambda policy: compile_step(update, policy, algorithm, optimizer)
    )
