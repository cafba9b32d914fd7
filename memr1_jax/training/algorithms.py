"""From options to a way of learning: the algorithm's own options, its optimiser, state and update.

GRPO, PPO and best-of-n differ in these alone; supervised fine-tuning also has data of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.rl.imitation import imitation_update
from memr1_jax.rl.ppo import Optimizers, create_ppo_state, ppo_update
from memr1_jax.rl.update import TrainState, create_optimizer, create_state, update
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.sft_step import make_sft_step
from memr1_jax.training.step import Policy, compile_step


@dataclasses.dataclass(frozen=True)
class Learner:
    """How one agent learns.

    `create_state(params, seed, width)` makes the state before the first step from the parameters
    that are trained and the network's width D; `make_step(policy)` compiles the train step.
    """

    algorithm: Any
    create_state: Callable[[dict, int, int], TrainState]
    make_step: Callable[[Policy], Callable]


def build_learner(options: ExperimentConfig, agent: str) -> Learner:
    """Builds what `options.algorithm` names for "manager" or "answer".

    Raises:
      UserError: there is no such algorithm.
    """
    if options.algorithm not in LEARNERS:
        raise UserError(
            f"--algorithm={options.algorithm} is none of {', '.join(LEARNERS)}: choose one of them."
        )
    return LEARNERS[options.algorithm](options, agent)


def warmup_steps(options: ExperimentConfig, agent: str, *, critic: bool = False) -> int:
    """Counts the optimiser steps over which an agent's learning rate, or its critic's, climbs.

    The ratio is of all optimiser steps that the agent takes; a number of steps overrides it.
    """
    names = ("critic_warmup_steps", "critic_warmup_ratio")
    names = names if critic else ("warmup_steps", "warmup_ratio")
    steps, ratio = (getattr(options, name) for name in names)
    updates = options.manager_steps if agent == "manager" else options.answer_steps
    return steps or round(ratio * updates * options.policy.epochs * options.policy.mini_batches)


def _optimizer(options, agent):
    return create_optimizer(
        options.learning_rate,
        warmup_steps=warmup_steps(options, agent),
        weight_decay=options.weight_decay,
        clip=options.gradient_clip,
    )


def _grpo(options, agent):
    return _sampling_learner(options.policy, update, options, agent)


def _best_of_n(options, agent):
    best = dataclasses.replace(options.policy, imitated="best")
    return _sampling_learner(best, imitation_update, options, agent)


def _sampling_learner(algorithm, update, options, agent):
    optimizer = _optimizer(options, agent)
    return Learner(
        algorithm,
        lambda params, seed, width: create_state(params, optimizer, seed, agent),
        lambda policy: compile_step(update, policy, algorithm, optimizer),
    )


def _ppo(options, agent):
    critic = create_optimizer(
        options.critic_learning_rate,
        warmup_steps=warmup_steps(options, agent, critic=True),
        weight_decay=options.weight_decay,
        clip=options.gradient_clip,
    )
    optimizers = Optimizers(_optimizer(options, agent), critic)
    return Learner(
        options.policy,
        lambda params, seed, width: create_ppo_state(params, optimizers, seed, width, agent),
        lambda policy: compile_step(ppo_update, policy, options.policy, optimizers),
    )


def _sft(options, agent):
    algorithm, optimizer = options.policy, _optimizer(options, agent)
    return Learner(
        algorithm,
        lambda params, seed, width: create_state(params, optimizer, seed, agent),
        lambda policy: make_sft_step(policy, algorithm, optimizer),
    )


LEARNERS = {"grpo": _grpo, "ppo": _ppo, "sft": _sft, "best_of_n": _best_of_n}
