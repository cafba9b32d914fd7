"""Compiles a step for a TPU with the real TPU compiler, on a machine that has none.

libtpu holds the compiler: `pip install libtpu`. Nothing is run and no weights are made: arguments
are shapes with shardings.
"""

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import jax

from memr1_jax.errors import UserError
from memr1_jax.planner.chips import CHIPS


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """The compiler's report on a program; bytes are those of one chip.

    `outputs` are those that do not reuse a donated argument; `peak` is arguments, outputs,
    temporaries and code together, which all live while the program runs.
    """

    device_kind: str
    devices: int
    seconds: float
    arguments: int
    outputs: int
    temporaries: int
    code: int

    @property
    def peak(self) -> int:
        """Bytes in use at most."""
        return self.arguments + self.outputs + self.temporaries + self.code

    @property
    def capacity(self) -> int | None:
        """Bytes that a program may use of a device's memory, where known."""
        chip = CHIPS.get(self.device_kind)
        return chip and chip.usable

    def __str__(self) -> str:
        """Returns a few lines to print."""
        size = "{:.3f} GiB".format
        lines = [
            f"compiled for {self.devices} x {self.device_kind} in {self.seconds:.1f} s",
            "HBM per chip: "
            + ", ".join(
                f"{name} {size(getattr(self, name) / 2**30)}"
                for name in ("arguments", "outputs", "temporaries", "code", "peak")
            ),
        ]
        if self.capacity:
            fits = "fits" if self.peak <= self.capacity else "does not fit"
            lines.append(f"{fits} into the usable {size(self.capacity / 2**30)}")
        return "\n".join(lines)


class CompilerFailed(UserError):
    """The TPU's compiler could not compile a program, which says nothing about its size."""


def topology_devices(name: str) -> Sequence[Any]:
    """Returns the devices of a TPU topology such as "v5e:2x2" or "v5p:2x2x1", for `make_mesh`.

    Raises:
      UserError: libtpu is missing, or knows no such topology.
    """
    from jax.experimental import topologies

    # There is no TPU to ask, on the network or in this machine.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # Nor one to be kept from other processes, which may compile at the same time.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        raise UserError(
            "Compiling for a TPU needs its compiler, which is not installed. Run: pip install"
            " libtpu"
        ) from error
    try:
        return topologies.get_topology_desc(name, platform="tpu").devices
    except Exception as error:  # libtpu raises several types for a name that it does not know.
        raise UserError(
            f"libtpu does not know --topology={name} ({str(error).splitlines()[0][:200]}). Give a"
            " chip and its grid, such as v5e:2x2, v6e:2x4 or v5p:2x2x1."
        ) from error


def abstract(tree: Any, shardings: Any) -> Any:
    """Returns shapes and number formats of a pytree, with shardings; makes no array."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def compile_ahead(step: Any, arguments: tuple) -> tuple[CompileReport, Any]:
    """Compiles a jitted `step` for the devices that its abstract `arguments` lie on.

    Returns:
      The report, and the compiled program.

    Raises:
      CompilerFailed: the compiler has an error of its own with this program.
      UserError: the program does not fit into the chips' memory.
    """
    devices = next(leaf.sharding.device_set for leaf in jax.tree.leaves(arguments) if leaf.sharding)
    began = time.perf_counter()
    lowered = step.trace(*arguments).lower(lowering_platforms=("tpu",))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise CompilerFailed(
                f"The TPU's compiler failed on this step ({str(error).splitlines()[0][:200]})."
                " That is an error of its own: give another --mesh or other --micro_batches."
            ) from error
        found = re.search(
            r"required[^()]*\(([^)]*)\) exceeds available[^()]*\(([^)]*)\)", str(error)
        )
        needed = f"it needs {found[1]} of {found[2]}" if found else str(error)[:300]
        raise UserError(
            f"The step does not fit into the memory of a chip ({needed}). Use more chips, more"
            " --micro_batches, --remat=full or a smaller --logit_chunk."
        ) from error
    memory = compiled.memory_analysis()
    report = CompileReport(
        device_kind=next(iter(devices)).device_kind,
        devices=len(devices),
        seconds=time.perf_counter() - began,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
    )
    return report, compiled
