"""Estimates a train step on a mesh: work of its phases, memory and communication.

Arguments are counted exactly. Temporaries are estimated, well enough to leave out meshes that
clearly do not fit and to order the others; the compiler has the last word.
"""

import dataclasses
import math
from typing import Any

import jax
from jax.sharding import Mesh

from memr1_jax.models.attention import SCORE_BYTES
from memr1_jax.parallel.mesh import make_mesh
from memr1_jax.parallel.rules import batch_sharding
from memr1_jax.parallel.sharded_step import step_shardings
from memr1_jax.planner import roofline
from memr1_jax.planner.abstract import AbstractStep
from memr1_jax.planner.chips import GIB
from memr1_jax.planner.roofline import COMPUTE, MASTER, Layout, Lengths, Work
from memr1_jax.training.config import ExperimentConfig

ANSWERING = ("answer prefill", "answer decode")  # phases of the frozen Answer Agent


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A layout, and bytes of one device.

    `arguments` are exact; `memory` is the estimated peak, `sent` the network traffic of a step.
    """

    layout: Layout
    arguments: int
    memory: float
    sent: float

    def __str__(self) -> str:
        """Returns a line to print."""
        arguments = f"{self.arguments / GIB:.2f} GiB of it arguments"
        return f"estimated peak memory a device: {self.memory / GIB:.1f} GiB, {arguments}"


@dataclasses.dataclass(frozen=True)
class Chain:
    """The block chain of one rollout and the `DecoderConfig` of its network."""

    config: Any
    lengths: Lengths

    @classmethod
    def of(cls, agent: Any, decoder: Any, prompts: int, group: int) -> "Chain":
        """Returns the chain of an agent's rollout."""
        instruction = agent.template.instruction_block.tokens.shape[-1]
        lengths = Lengths(instruction, agent.prompt_length, agent.response_length, prompts, group)
        return cls(decoder.config, lengths)


def sampled_chain(made: AbstractStep, options: ExperimentConfig) -> Chain:
    """Returns the trained agent's chain in its rollout; of one turn, where there are episodes."""
    policy, rows = made.policy, (options.batch, options.policy.group)
    if policy.horizon is not None and policy.horizon.scheme == "terminal":
        rows = (math.prod(rows), 1)  # trajectories, each with prompts of its own
    return Chain.of(policy.agent, policy.decoder, *rows)


def trained_chain(made: AbstractStep, options: ExperimentConfig) -> Chain:
    """Returns the trained agent's chain in its update."""
    sampled = sampled_chain(made, options)
    prompts = _turns(made) * sampled.lengths.prompts
    return Chain(sampled.config, dataclasses.replace(sampled.lengths, prompts=prompts))


def asked_chain(made: AbstractStep, options: ExperimentConfig) -> Chain | None:
    """Returns the chain of answers to a manager's edits, those made at one time; else None.

    There is a prompt for each sample and question.
    """
    answerer = made.policy.answerer
    if answerer is None:
        return None
    prompts = _asked_at_once(made, options)
    if answerer.together:
        prompts = min(prompts, answerer.together)
    return Chain.of(answerer.agent, answerer.decoder, prompts, 1)


def _asked_at_once(made, options):
    """Counts the answers that belong together, to one turn or to the end of the episodes."""
    horizon, questions = made.policy.horizon, options.questions_per_turn
    if horizon is not None:
        end = _data(made).asked.shape[1]
        questions = end if horizon.scheme == "terminal" else questions + end
    return options.batch * options.policy.group * questions


def _askings(made, options):
    """Counts how often an `asked_chain` is computed in a step."""
    policy = made.policy
    parts = math.ceil(_asked_at_once(made, options) / asked_chain(made, options).lengths.prompts)
    every_turn = policy.horizon is not None and policy.horizon.scheme == "branches"
    return parts * (_turns(made) if every_turn else 1)


def _turns(made):
    """Counts the turns of an episode, 1 without episodes."""
    return 1 if made.policy.horizon is None else _data(made).turns.present.shape[1]


def _data(made):
    return made.arguments[3]


def step_work(made: AbstractStep, options: ExperimentConfig, layout: Layout) -> dict[str, Work]:
    """Counts operations and bytes of the phases of a train step, in their order.

    The judge of a reward is left out.
    """
    trained, asked = trained_chain(made, options), asked_chain(made, options)
    chain = (trained.config, trained.lengths, layout)
    work = {}
    if options.algorithm != "sft":
        turn = (trained.config, sampled_chain(made, options).lengths, layout)
        work["prefill"] = roofline.prefill_work(*turn).times(_turns(made))
        work["decode"] = roofline.decode_work(*turn).times(_turns(made))
    if asked:
        part, times = (asked.config, asked.lengths, layout), _askings(made, options)
        phases = (roofline.prefill_work(*part), roofline.decode_work(*part))
        work |= {name: phase.times(times) for name, phase in zip(ANSWERING, phases, strict=True)}
    fixed = roofline.forward_work(*chain)
    if _has_reference(options):
        work["reference"] = fixed
    if options.algorithm == "ppo":
        work["values"] = fixed
    if _has_old_pass(options):
        work["old log-probabilities"] = fixed
    update = roofline.update_work(*chain, remat=options.remat, lora_rank=options.lora_rank)
    work["update"] = update.times(options.policy.epochs * _networks(options))
    return work


def estimate(
    made: AbstractStep, options: ExperimentConfig, devices: list, layout: Layout
) -> Estimate:
    """Estimates memory and communication of a step on `devices` in a layout."""
    arguments = argument_bytes(made, layout_mesh(layout, devices))
    rollout = _rollout_bytes(made, options, layout)
    update = _update_bytes(made, options, layout)
    sent = _sent_bytes(made, options, layout)
    return Estimate(layout, arguments, arguments + max(rollout, update), sent)


def argument_shardings(made: AbstractStep, mesh: Mesh) -> tuple:
    """Returns the shardings of a step's arguments."""
    *placed, _, _ = made.arguments
    return (*step_shardings(mesh, *placed), *[batch_sharding(mesh)] * 2)


def argument_bytes(made: AbstractStep, mesh: Mesh) -> int:
    """Counts the bytes of a step's arguments on one device, from their shardings."""
    return sum(
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in zip(
            jax.tree.leaves(made.arguments),
            jax.tree.leaves(argument_shardings(made, mesh)),
            strict=True,
        )
    )


def layout_mesh(layout: Layout, devices: list) -> Mesh:
    """Makes the mesh of a layout."""
    return make_mesh(layout.axes, devices)


def _rollout_bytes(made, options, layout):
    """Sums temporaries of sampling: gathered weights, keys, values, a layer over all prompts."""

    def needed(chain):
        prompts = dataclasses.replace(chain.lengths, response=0)
        return (
            COMPUTE * chain.config.num_parameters / layout.tensor
            + roofline.cache_bytes(chain.config, chain.lengths, layout)
            + _layer_bytes(chain.config, prompts, layout)
        )

    chains = (sampled_chain(made, options), asked_chain(made, options))
    return max(needed(chain) for chain in chains if chain)


def _update_bytes(made, options, layout):
    """Sums the update's gradients, kept activations, one layer, hidden states and a table."""
    chain = trained_chain(made, options)
    config, lengths = chain.config, chain.lengths
    parts = layout.micro_batches * options.policy.mini_batches
    part = dataclasses.replace(lengths, prompts=math.ceil(lengths.prompts / parts))
    # The sum over micro-batches, and what one adds to it.
    gradients = 2 * MASTER * _trained_size(options, config) / layout.shards
    # Hidden states of responses and their gradients meet the vocabulary split over data alone.
    tokens = part.responses * part.response
    hidden = 2 * COMPUTE * tokens * config.model_width / layout.data
    table = COMPUTE * config.vocab_size * config.model_width  # gathered
    kept = roofline.kept_bytes(config, part, dataclasses.replace(layout, micro_batches=1))
    layer = _layer_bytes(config, part, layout)
    return gradients + hidden + table + kept + layer


def _layer_bytes(config, lengths, layout):
    """Counts bytes of a layer's hidden states, scores and feed-forward arrays."""
    prompts = math.ceil(lengths.prompts / layout.rows)
    tokens = lengths.instruction + prompts * (lengths.prompt + lengths.group * lengths.response)
    width = 2 * config.model_width + 2 * config.mlp_width / layout.tensor
    return COMPUTE * tokens * width + 2 * SCORE_BYTES


def _sent_bytes(made, options, layout):
    """Counts bytes sent by a device: weights and gradients over fsdp, sums over data and tensor.

    A gather or a scatter of X bytes over n devices sends X (n - 1) / n of them, a sum both.
    """
    config = trained_chain(made, options).config
    steps = options.policy.mini_batches * options.policy.epochs
    parts = layout.micro_batches * steps * _networks(options)
    # Passes over a micro-batch that read the weights: fixed ones, forward, backward, recomputation.
    fixed = _has_reference(options) + _has_old_pass(options)
    passes = roofline.BACKWARD[options.remat] + fixed
    weights = COMPUTE * config.num_parameters / layout.tensor
    trained = _trained_size(options, config) / layout.tensor
    fsdp = weights * (passes * parts + 1) + COMPUTE * trained * parts  # once for the rollout
    data = 2 * MASTER * trained / layout.fsdp * parts
    tensor = 0
    counts = [(trained_chain(made, options), 1 + passes + 1)]
    if asked := asked_chain(made, options):
        counts.append((asked, _askings(made, options)))
    for chain, count in counts:
        tokens = count * chain.lengths.tokens / layout.rows
        # Two sums a layer of every token's D numbers.
        tensor += 4 * chain.config.num_layers * COMPUTE * chain.config.model_width * tokens
    return sum(
        sent * (size - 1) / size
        for sent, size in ((fsdp, layout.fsdp), (data, layout.data), (tensor, layout.tensor))
    )


def _trained_size(options, config):
    if options.lora_rank:
        return roofline.adapter_size(config, options.lora_rank)
    return config.num_parameters


def _has_reference(options):
    return bool(options.policy.kl_weight) and options.algorithm in ("grpo", "ppo")


def _has_old_pass(options):
    """Tells whether the policy before the update has a pass of its own."""
    policy = options.policy
    penalised = _has_reference(options) and policy.penalises_reward
    return options.algorithm in ("grpo", "ppo") and (not policy.single_step or penalised)


def _networks(options):
    """Counts the networks that learn: PPO has a critic as well."""
    return 2 if options.algorithm == "ppo" else 1
