"""What a train step holds in memory between steps, and what full fine-tuning would hold."""

import dataclasses
from typing import Any

import jax

from memr1_jax.training.algorithms import Learner
from memr1_jax.training.assembly import trainable
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.loading import Model


def print_memory(
    options: ExperimentConfig, learner: Learner, agent: str, model: Model, state: Any, frozen: Any
) -> None:
    """Prints how much is trained and what it takes; with adapters beside full fine-tuning.

    Bytes are those of all devices together. Gradients, samples and activations come on top.
    """
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    whole = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    held = f"{_gib(state)} of weights in training and their moments, {_gib(frozen)} frozen"
    print(f"Trained: {count:,} of {whole:,} parameters; {held}.", end="")
    if options.lora_rank:
        full = dataclasses.replace(options, lora_rank=0)

        def create(params):
            start = trainable(full, dataclasses.replace(model, params=params), agent)
            return learner.create_state(start, options.seed, model.config.model_width)

        print(f" Full fine-tuning: {_gib(jax.eval_shape(create, model.params))}.", end="")
    print(flush=True)


def _gib(tree: Any) -> str:
    """Size of a pytree; an array that stands in it twice counts once."""
    leaves = {id(leaf): leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)}
    return f"{sum(leaves.values()) / 2**30:.3f} GiB"
