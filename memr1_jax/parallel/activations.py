"""Keeps activations split and weights gathered on a mesh; does nothing without one.

The mesh is that of `jax.set_mesh`, or of `on_mesh` inside a compiled function. Where there is none
each function here returns its argument, so one device runs the plain program.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from memr1_jax.parallel.mesh import AXES
from memr1_jax.parallel.rules import BATCH, HEADS, fitted, partition_spec


def on_mesh(mesh: Mesh | None) -> contextlib.AbstractContextManager:
    """Makes this module's functions act on `mesh` while tracing inside; None changes nothing."""
    if mesh is None:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def split(x: jax.Array, *, rows: int | None = 0, heads: int | None = None) -> jax.Array:
    """Keeps axis `rows` of an activation over data and fsdp, axis `heads` over tensor.

    An axis that does not divide evenly stays whole; all other axes are whole.
    """
    return _constrain(x, _axes(x, rows, heads))


def spread(x: jax.Array) -> jax.Array:
    """Keeps the leading axis over the whole mesh, and all others whole.

    For sampling, which works on a row's whole vocabulary.
    """
    return _constrain(x, (AXES, *([None] * (x.ndim - 1))))


def split_tokens(x: jax.Array) -> jax.Array:
    """Keeps the token axis of `[..., chunk, D]` over data alone.

    For products with the vocabulary, which lies over tensor and fsdp: the table stays put.
    """
    return _constrain(x, (*([None] * (x.ndim - 2)), "data", None))


def gather_weights(params: Any, dtype: Any) -> Any:
    """Gathers weights as the arithmetic needs them: whole over fsdp, still split over tensor.

    They travel in `dtype`, to which the arithmetic casts them in any case, and their gradients go
    back to where the weights came from.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return params

    def gather(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        home = partition_spec(mesh, name, leaf.shape)
        away = partition_spec(mesh, name, leaf.shape, without=("fsdp",))
        kind = leaf.dtype if leaf.dtype == "int8" else dtype
        return leaf if home == away else _move(home, away, leaf.astype(kind))

    return jax.tree_util.tree_map_with_path(gather, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _move(home, away, x):
    return jax.lax.with_sharding_constraint(x, away)


def _move_forward(home, away, x):
    return _move(home, away, x), None


def _move_backward(home, away, _, gradient):
    # Each device keeps its part of the sum: a reduce-scatter, where the transpose of a plain
    # constraint would sum the whole gradient onto every device.
    return (jax.lax.with_sharding_constraint(gradient, home),)


_move.defvjp(_move_forward, _move_backward)


def splits(x: jax.Array, *, rows: int | None = 0, heads: int | None = None) -> int:
    """Counts the devices over which `split` with these axes lays an activation; 1 without mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return 1
    sharding = NamedSharding(mesh, fitted(mesh, _axes(x, rows, heads), x.shape))
    return x.size // math.prod(sharding.shard_shape(x.shape))


def on_devices(
    function: Callable, arrays: Sequence[jax.Array], axes: Sequence[tuple], result: tuple
) -> jax.Array:
    """Calls `function` on each device with its own part of `arrays`; on all of them without mesh.

    For kernels, which the compiler cannot divide. `axes` names the mesh axes of each array, and
    `result` those of what comes back, which has the leading axes of the first array.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function(*arrays)
    specs = [fitted(mesh, names, x.shape) for x, names in zip(arrays, axes, strict=True)]
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=tuple(specs),
        out_specs=fitted(mesh, result, arrays[0].shape),
        check_vma=False,
    )(*arrays)


def _axes(x, rows, heads):
    axes: list = [None] * x.ndim
    if rows is not None:
        axes[rows] = BATCH
    if heads is not None:
        axes[heads] = HEADS
    return tuple(axes)


def _constrain(x, axes):
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, fitted(mesh, axes, x.shape))
