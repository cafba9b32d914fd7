"""One agent's train step from options: policy, frozen weights, way of learning, first state.

GRPO, PPO, best-of-n and supervised fine-tuning differ in their `Learner` alone. Ahead-of-time
compilation builds the same, of weights that are shapes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from memr1_jax.agents.agent_pair import AgentPair, Models
from memr1_jax.agents.consult import FrozenAnswerer
from memr1_jax.agents.extractor_rollout import FrozenManager
from memr1_jax.agents.told_facts import extractor_of
from memr1_jax.errors import UserError
from memr1_jax.models.loading import Model, read_params
from memr1_jax.models.lora import LoRAConfig, init_adapters, join, lora_of
from memr1_jax.models.precision import float32_copy
from memr1_jax.parallel.rules import state_shardings
from memr1_jax.rl.imitation import imitation_update
from memr1_jax.rl.ppo import Optimizers, create_ppo_state, ppo_update
from memr1_jax.rl.update import TrainState, create_optimizer, create_state, update
from memr1_jax.run.streams import run_key
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.step import Frozen, Policy, compile_step, make_sft_step


def untrained(options: LoRAConfig, model: Model) -> dict:
    """Returns an untrained agent in the form of `Frozen`: no adapters, or the network."""
    return {} if options.lora_rank else model.params


def network(options: LoRAConfig, model: Model, params: dict) -> dict:
    """Returns all parameters of an agent from those that are trained."""
    lora = lora_of(options)
    return params if lora is None else join(model.params, params, lora.scale)


def trainable(options: ExperimentConfig, model: Model, agent: str) -> dict:
    """Makes the float32 parameters an agent starts from: adapters, or a copy of the network."""
    lora = lora_of(options)
    if lora is not None:
        return init_adapters(model.config, lora, run_key(options.seed, agent, "adapters"))
    return float32_copy(model.params)


def make_policy(options: ExperimentConfig, pair: AgentPair, models: Models, agent: str) -> Policy:
    """Makes the static part of the train step of "manager", "answer" or "extractor"."""
    lora = lora_of(options)
    manager = agent == "manager"
    agents = {"manager": pair.manager, "answer": pair.answerer}
    return Policy(
        agent=agents[agent]
        if agent in agents
        else extractor_of(options, options.extraction, models.manager),
        decoder=models.of(agent).decoder,
        answerer=FrozenAnswerer(pair.answerer, models.answerer.decoder, options.consult_batch)
        if agent != "answer"
        else None,
        manager=FrozenManager(pair.manager, models.manager.decoder)
        if agent == "extractor"
        else None,
        reward=options.reward,
        judge=pair.judge,
        horizon=options.horizon if manager and options.horizon.episodic else None,
        adapter_scale=1.0 if lora is None else lora.scale,
        int8_rollout=options.rollout_weights == "int8",
    )


def make_frozen(
    options: ExperimentConfig, models: Models, agent: str, answer_params: dict
) -> Frozen:
    """Collects the weights that a step reads; `answer_params` are the answerer's trained ones."""
    model = models.of(agent)

    def seen_from(other: Model, params: dict) -> dict:
        """Returns another role's parameters, whole where its base model is not that of `model`."""
        return params if other is model else network(options, other, params)

    answerer = judge = manager = None
    if agent != "answer" and options.algorithm != "sft":  # demonstrations are not judged
        answerer = seen_from(models.answerer, answer_params)
        manager = untrained(options, model) if agent == "extractor" else None
    if models.judge is not None:
        judge = seen_from(models.judge, untrained(options, models.judge))
    uses_reference = options.policy.kl_weight and options.algorithm in ("grpo", "ppo")
    return Frozen(
        reference=untrained(options, model) if uses_reference else None,
        answerer=answerer,
        backbone=model.params if options.lora_rank else None,
        judge=judge,
        manager=manager,
    )


@dataclasses.dataclass(frozen=True)
class Learner:
    """Describes how one agent learns.

    `create_state(params, seed, width)` makes the state before the first step from the parameters
    that are trained and the network's width D; `make_step(policy)` compiles the train step.
    """

    algorithm: Any
    create_state: Callable[[dict, int, int], TrainState]
    make_step: Callable[[Policy], Callable]
    oversample: int = 1  # see `GRPOOptions`
    flat_odds: float = 1.0


def build_learner(options: ExperimentConfig, agent: str) -> Learner:
    """Builds what `options.algorithm` names for "manager", "answer" or "extractor".

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
    updates = getattr(options, f"{agent}_steps")
    return steps or round(ratio * updates * options.policy.epochs * options.policy.mini_batches)


def _optimizer(options, agent):
    return create_optimizer(
        options.learning_rate,
        name=options.optimizer,
        warmup_steps=warmup_steps(options, agent),
        weight_decay=options.weight_decay,
        clip=options.gradient_clip,
    )


def _grpo(options, agent):
    learner, policy = _sampling_learner(options.policy, update, options, agent), options.policy
    return dataclasses.replace(learner, oversample=policy.oversample, flat_odds=policy.flat_odds)


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
        name=options.optimizer,
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


def initial_state(
    options: ExperimentConfig, learner: Learner, agent: str, model: Model, mesh: Mesh | None
) -> Any:
    """Makes an agent's state before the first step, on a mesh where the rules put it.

    Weights are trained from their published precision, which the arithmetic's may be below.
    """
    params, whole = model.params, not options.lora_rank
    if whole and model.decoder.dtype != jnp.float32:
        params, _ = read_params(model.folder, mesh, jnp.float32)
    create = _creator(options, learner, agent, model)
    shardings = None
    if mesh is not None:
        shardings = state_shardings(mesh, jax.eval_shape(create, params))
    return jax.jit(create, out_shardings=shardings)(params)


def state_shapes(options: ExperimentConfig, learner: Learner, agent: str, model: Model) -> Any:
    """Returns the shapes of `initial_state`."""
    return jax.eval_shape(_creator(options, learner, agent, model), model.params)


def _creator(options, learner, agent, model):
    """Returns what makes an agent's first state from its network's parameters."""

    def create(params):
        start = trainable(options, dataclasses.replace(model, params=params), agent)
        return learner.create_state(start, options.seed, model.config.model_width)

    return create


def print_memory(
    options: ExperimentConfig, learner: Learner, agent: str, model: Model, state: Any, frozen: Any
) -> None:
    """Prints how much is trained and what it takes; with adapters, also for full fine-tuning.

    Bytes are those of all devices together. Gradients, samples and activations come on top.
    """
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    whole = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    held = f"{_gib(state)} of weights in training and their moments, {_gib(frozen)} frozen"
    print(f"Trained: {count:,} of {whole:,} parameters; {held}.", end="")
    if options.lora_rank:
        full = dataclasses.replace(options, lora_rank=0)
        print(f" Full fine-tuning: {_gib(state_shapes(full, learner, agent, model))}.", end="")
    print(flush=True)


def _gib(tree: Any) -> str:
    """Returns the size of a pytree; an array that stands in it twice counts once."""
    leaves = {id(leaf): leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)}
    return f"{sum(leaves.values()) / 2**30:.3f} GiB"
