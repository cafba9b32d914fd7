"""The compiled programs of the engine: greedy responses, and keys and values of a prefix.

Axis letters: B rows of a batch, P prompt length, R response length, T length of a shared prefix.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from memr1_jax.agents.manager import grammar_constraint
from memr1_jax.models.decoder import Block, Context, Decoder
from memr1_jax.models.sampler import generate, greedy_sampling, rollout_weights
from memr1_jax.parallel.activations import on_mesh
from memr1_jax.text.grammar import Grammar

_PROGRAMS: dict[tuple, Callable] = {}


def compiled(function: Callable, static: tuple, arguments: tuple) -> Callable:
    """Compiles the function, its first arguments fixed, for the shapes of the others.

    So no timed run compiles, and engines share their programs.
    """
    leaves, structure = jax.tree.flatten(arguments)
    key = (function, static, structure, *((np.shape(x), x.dtype) for x in leaves))
    if key not in _PROGRAMS:
        compiled = jax.jit(functools.partial(function, *static)).lower(*arguments).compile()
        _PROGRAMS[key] = compiled
    return _PROGRAMS[key]


def greedy(
    decoder: Decoder,
    max_tokens: int,
    stop_tokens: tuple[int, ...],
    mesh: Mesh | None,
    params: dict,
    past: tuple[Context, ...],
    block: Block,
    active: jax.Array,
    shown: jax.Array,
    grammar: Grammar | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Generates greedy responses `[B, R]`, their lengths and whether they stopped, each `[B]`."""
    with on_mesh(mesh):
        constraint = None
        if grammar is not None:
            constraint = grammar_constraint(grammar, shown[:, None], (*shown.shape, 1))
        samples = generate(
            decoder,
            rollout_weights(params, decoder.dtype),
            (block,),
            *greedy_sampling(),
            group=1,
            max_tokens=max_tokens,
            stop_tokens=stop_tokens,
            active=active[:, None],
            constraint=constraint,
            past=past,
        )
        return samples.tokens[:, 0], samples.length[:, 0], samples.stopped[:, 0]


def read_prefix(decoder: Decoder, mesh: Mesh | None, params: dict, block: Block) -> Context:
    """Computes keys and values of a prefix `[T]`."""
    with on_mesh(mesh):
        _, (context,) = decoder.apply({"params": params}, (block,), method=Decoder.prefill)
        return context
