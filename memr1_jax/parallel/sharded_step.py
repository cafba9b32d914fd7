"""A train step on a mesh: where its arguments lie, and the step compiled for them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from memr1_jax.errors import UserError
from memr1_jax.parallel.activations import on_mesh
from memr1_jax.parallel.rules import (
    BATCH,
    batch_sharding,
    param_shardings,
    replicated,
    state_shardings,
)


class Placed(NamedTuple):
    """Arguments of a train step, or their shardings."""

    state: Any
    frozen: Any
    tools: Any
    data: Any


def step_shardings(mesh: Mesh, state: Any, frozen: Any, tools: Any, data: Any) -> Placed:
    """Tells where the arguments of a step lie; each may be of arrays or abstract.

    State and frozen weights follow the rules. Tools and data, which every row reads, are on every
    device; the batch that is picked from the data is split.
    """
    everywhere = replicated(mesh)
    return Placed(
        state_shardings(mesh, state),
        param_shardings(mesh, frozen),
        jax.tree.map(lambda _: everywhere, tools),
        jax.tree.map(lambda _: everywhere, data),
    )


def place(mesh: Mesh, state: Any, frozen: Any, tools: Any, data: Any) -> Placed:
    """Puts the arguments of a step where they lie on the mesh.

    Several processes all give the same whole arrays, or arrays that already lie on the mesh.
    The result may share memory with the arguments, and the state is donated to the step: give a
    copy of weights that are needed again.
    """
    shardings = step_shardings(mesh, state, frozen, tools, data)
    arguments = Placed(state, frozen, tools, data)
    if mesh.is_multi_process:
        return jax.tree.map(_place_parts, arguments, shardings)
    return jax.device_put(arguments, shardings)


def shard_train_step(
    train_step: Callable, mesh: Mesh, state: Any, frozen: Any, tools: Any, data: Any
) -> Callable:
    """Compiles `train_step(state, frozen, tools, data, rows, valid)` for a mesh.

    Args:
      train_step: from `compile_step`; compiled again from the function below its `jit`.
      mesh: from `make_mesh`.
      state: arrays or abstract, as are the next three; only names and shapes are read.
      frozen: see above.
      tools: see above.
      data: see above.

    Returns:
      The compiled step. `rows` and `valid` are split over data and fsdp, the state is donated and
      stays where it lies, metrics and rollout come back on every device.
    """
    function = getattr(train_step, "__wrapped__", train_step)
    shardings = step_shardings(mesh, state, frozen, tools, data)
    rows = batch_sharding(mesh)

    def sharded(*arguments):
        with on_mesh(mesh):
            return function(*arguments)

    return jax.jit(
        sharded,
        in_shardings=(*shardings, rows, rows),
        out_shardings=(shardings.state, replicated(mesh), replicated(mesh)),
        donate_argnums=0,
    )


def check_batch(mesh: Mesh, batch: int, micro_batches: int, mini_batches: int = 1) -> None:
    """Raises UserError where micro-batches do not divide over the devices that split them.

    A batch falls into `mini_batches` steps of the optimiser, each into `micro_batches`.
    """
    devices = math.prod(mesh.shape[name] for name in BATCH)
    flags = f"--micro_batches={micro_batches}"
    if mini_batches > 1:
        flags = f"--mini_batches={mini_batches} of {flags}"
    parts = mini_batches * micro_batches
    if batch % (parts * devices):
        raise UserError(
            f"--batch={batch} in {flags} does not divide over the {devices} devices of the mesh"
            f" axes {' and '.join(BATCH)}. Choose a batch that is a multiple of {parts} x {devices}"
            f" = {parts * devices}, fewer parts, or give more devices to tensor."
        )


def _place_parts(leaf, sharding):
    """Puts on this process's devices their parts of an array that all processes have."""
    if isinstance(leaf, jax.Array):
        if not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])
