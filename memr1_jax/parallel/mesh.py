"""Device meshes from a flag such as `--mesh=data:1,fsdp:8,tensor:1`."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from memr1_jax.errors import UserError
from memr1_jax.options import at_least, option

AXES = ("data", "fsdp", "tensor")
REST = -1


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """Spread the work over devices and hosts."""

    mesh: str = option(
        "", "Sizes of the axes, as data:1,fsdp:8,tensor:1; -1 for the rest. Empty: one device."
    )
    distributed: str = option(
        "", "Several processes: auto (TPU, Slurm), or the first one's host:port. Empty: one."
    )
    num_processes: int = option(
        1, "Processes, where --distributed is host:port.", within=at_least(1)
    )
    process_id: int = option(
        0, "Number of this process, where --distributed is host:port.", within=at_least(0)
    )


def parse_mesh(text: str) -> dict[str, int]:
    """Parses the sizes of all three axes, in the order of `AXES`: "data:1,fsdp:8,tensor:1".

    An axis that is left out has size 1. One size may be -1: all devices that the others leave.

    Raises:
      UserError: an unknown or repeated axis, or an invalid size.
    """
    sizes = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, size = (piece.strip() for piece in part.partition(":"))
        if name not in AXES:
            raise UserError(
                f"--mesh={text} names the axis {name!r}. The axes are {', '.join(AXES)}: write"
                " for example --mesh=data:1,fsdp:8,tensor:1."
            )
        if name in sizes:
            raise UserError(f"--mesh={text} gives the axis {name} twice. Give it once.")
        try:
            sizes[name] = int(size)
        except ValueError:
            sizes[name] = 0
        if sizes[name] < 1 and sizes[name] != REST:
            raise UserError(
                f"--mesh={text} gives the axis {name} the size {size!r}. Give a number from 1 on,"
                " or -1 for all devices that the other axes leave."
            )
    if list(sizes.values()).count(REST) > 1:
        raise UserError(f"--mesh={text} leaves more than one axis open. Only one may be -1.")
    return {name: sizes.get(name, 1) for name in AXES}


def make_mesh(spec: str | dict[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """Makes a mesh of all `devices`: axes data, fsdp and tensor, sharded by the compiler.

    Args:
      spec: text for `parse_mesh`, or its result.
      devices: by default all devices of all hosts; those of a topology for ahead-of-time
        compilation.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    sizes = parse_mesh(spec) if isinstance(spec, str) else dict(spec)
    devices = list(jax.devices() if devices is None else devices)
    text = ",".join(f"{name}:{size}" for name, size in sizes.items())
    known = math.prod(size for size in sizes.values() if size != REST)
    sizes = {
        name: max(len(devices) // known, 1) if size == REST else size
        for name, size in sizes.items()
    }
    if math.prod(sizes.values()) != len(devices):
        raise UserError(
            f"--mesh={text} does not fit {len(devices)} devices. Choose sizes whose product is"
            f" {len(devices)}, or -1 for one of them."
        )
    # An axis of the mesh may take a part of an axis of the chips' grid.
    grid = mesh_utils.create_device_mesh(
        tuple(sizes[name] for name in AXES), devices, allow_split_physical_axes=True
    )
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))
