"""From options to a way of learning: the algorithm's own options, its optimiser, state and update.

GRPO, PPO and best-of-n differ in these alone; supervised fine-tuning also has data of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from memr1_jax.rl.imitation import Imitation, imitation_update
from memr1_jax.rl.ppo import PPO, Optimizers, create_ppo_state, ppo_update
from memr1_jax.rl.update import GRPO, TrainState, create_optimizer, create_state, update
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
        algorithm = _chosen(GRPO, options, dual_clip=options.dual_clip or None)
        return _learner(algorithm, update, optimizer, state)
    if options.algorithm == "ppo":
        algorithm = _chosen(
            PPO,
            options,
            dual_clip=options.dual_clip or None,
            value_clip=options.value_clip or None,
        )
        critic = create_optimizer(
            options.critic_learning_rate,
            warmup_steps=options.critic_warmup_steps,
            weight_decay=options.weight_decay,
            clip=options.gradient_clip,
        )
        optimizers = Optimizers(optimizer, critic)
        return _learner(
            algorithm,
            ppo_update,
            optimizers,
            lambda params, seed, width: create_ppo_state(params, optimizers, seed, width),
        )
    best = options.algorithm == "best_of_n"
    algorithm = _chosen(Imitation, options, keep="best" if best else "all")
    if best:
        return _learner(algorithm, imitation_update, optimizer, state)
    return Learner(algorithm, state, lambda policy: make_sft_step(policy, algorithm, optimizer))


def _learner(algorithm, update, optimizer, state):
    return Learner(
        algorithm, state, lambda policy: compile_step(update, policy, algorithm, optimizer)
    )


def _chosen(kind, options, **changes):
    """The fields of an algorithm that are options of the same name, with `changes`."""
    names = {field.name for field in dataclasses.fields(kind)}
    values = {name: value for name, value in dataclasses.asdict(options).items() if name in names}
    if "sampler_cap" in values:
        values["sampler_cap"] = options.sampler_cap or None
    return kind(**values | changes)
