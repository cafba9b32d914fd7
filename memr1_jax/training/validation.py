"""Measures an agent on held-out dialogues as it learns, to pick the checkpoint that is kept."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.data.batches import AnswerData, ManagerData, row_batches
from memr1_jax.data.dialogues import data_sources, generated_dialogues, load_dialogues
from memr1_jax.data.tuples import spread
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.models.sampler import greedy_sampling
from memr1_jax.options import with_options
from memr1_jax.parallel.activations import on_mesh
from memr1_jax.parallel.rules import replicated
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.step import Frozen, Policy


def validation_options(options: ExperimentConfig) -> ExperimentConfig:
    """Returns the options that make held-out data: those of single turns and their rewards."""
    algorithm = "grpo" if options.algorithm == "sft" else options.algorithm
    changes = {"algorithm": algorithm, "horizon": "one_step", "kl_weight": 0.0}
    return with_options(options, eval_split="validation", **changes)


def validation_dialogues(
    options: ExperimentConfig,
    folder: Any,
    evaluated: Sequence[Conversation],
    held_out: Sequence[Conversation] = (),
) -> list[Conversation]:
    """Returns the dialogues to validate on, whatever split is `evaluated`.

    They are those of the validation split, the questions that are held out of training, and
    generated ones.

    Raises:
      UserError: there are none.
    """
    found = list(evaluated)
    if options.eval_split != "validation":
        # Generated ones are written for the split that is evaluated alone.
        names = [name for name in data_sources(options) if name != "synthetic"]
        given = with_options(validation_options(options), data=",".join(names))
        found = load_dialogues(given, options.seed, folder, learn=False)[1] if names else []
    found += held_out
    found += generated_dialogues(
        options, options.seed, options.validation_generated, "validation-generated"
    )
    if not any(dialogue.questions for dialogue in found):
        raise UserError(
            "--select=validation needs dialogues of the validation split, and there are none"
            f" (--data={options.data}). Generate some with --validation_generated, or give"
            " --eval_split=validation."
        )
    return found


def make_validation(
    policy: Policy,
    frozen: Frozen,
    tools: Any,
    data: AnswerData | ManagerData,
    *,
    rows: int,
    batch: int,
    mesh: Any = None,
    put: Callable[[np.ndarray], jax.Array] = jnp.asarray,
) -> Callable[[dict], float]:
    """Returns `validate(params)`: the mean reward of one greedy response to each held-out prompt.

    Args:
      policy: of the train step; a manager is rewarded for single turns, whatever its horizon.
      frozen: frozen weights, where they lie in training.
      tools: where they lie in training.
      data: held-out, with the same sizes as the data to learn from, on the device.
      rows: how many of them, evenly spread; 0 for all.
      batch: prompts at a time.
      mesh: that of the train step, if it has one.
      put: brings row numbers and the mask of valid rows to the devices.
    """
    measure = greedy_reward(policy, batch=batch, mesh=mesh, put=put)
    picked = np.array(list(dict.fromkeys(spread(data.rows, rows))), np.int32)
    return lambda params: measure(params, frozen, tools, data, picked)


def greedy_reward(
    policy: Policy,
    *,
    batch: int,
    mesh: Any = None,
    put: Callable[[np.ndarray], jax.Array] = jnp.asarray,
) -> Callable[..., float]:
    """Returns `measure(params, frozen, tools, data, picked)`, compiled once for all its calls.

    It is the mean reward of one greedy response to each of the rows `picked`; the arguments are
    those of `make_validation`.
    """
    policy = dataclasses.replace(policy, horizon=None)

    def total(params, frozen, tools, data, rows, valid):
        with on_mesh(mesh):
            rollout = policy.rollout(
                params,
                frozen,
                tools,
                data.select(rows, valid),
                *greedy_sampling(),
                group=1,
            )
        return jnp.sum(rollout.rewards), jnp.sum(rollout.valid)

    total = jax.jit(total, out_shardings=None if mesh is None else replicated(mesh))

    def measure(params, frozen, tools, data, picked) -> float:
        reward = present = 0.0
        for places, valid in row_batches(len(picked), batch):
            more, rows = total(params, frozen, tools, data, put(picked[places]), put(valid))
            reward, present = reward + float(more), present + float(rows)
        return reward / max(present, 1.0)

    return measure
