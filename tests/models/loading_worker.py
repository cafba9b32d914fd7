"""Loads weights onto eight forced CPU devices in a process of its own; prints its findings as JSON.

python loading_worker.py equal FOLDER MESH MESH ...                         against load_params
python loading_worker.py memory FOLDER MESH DTYPE [COORDINATOR PROCESSES ID]   peak memory
"""

import json
import os
import sys
from pathlib import Path

job, folder, *rest = sys.argv[1:]
coordinator, processes, process = rest[2:] if job == "memory" and rest[2:] else ("", 1, 0)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={8 // int(processes)}"
os.environ["JAX_PLATFORMS"] = "cpu"
sys.path[:0] = [str(Path(__file__).parents[2])]

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax import numpy as jnp  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from memr1_jax.models.hf.hf_weights import load_params, load_sharded  # noqa: E402
from memr1_jax.models.precision import cast_weights  # noqa: E402
from memr1_jax.parallel.distributed import initialize  # noqa: E402
from memr1_jax.parallel.mesh import make_mesh  # noqa: E402
from memr1_jax.parallel.rules import param_shardings  # noqa: E402


def equal():
    """Tells whether each mesh holds the right values at the right places, also after a donation."""
    expected, _ = load_params(folder)
    report = {}
    for text in rest:
        mesh = make_mesh(text)
        params, _ = load_sharded(folder, mesh)
        wanted = param_shardings(mesh, expected)
        placed = jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, params, wanted))
        values = same(params, expected)
        # Devices may share what they were given; whoever writes into it must not reach the others.
        donated = same(jax.jit(add_one, donate_argnums=0)(params), add_one(expected))
        report[text] = {"placed": placed, "values": values, "donated": donated}

    # Any other sharding does as well: layers, and heads within their size.
    mesh = make_mesh("data:2,fsdp:2,tensor:2")
    other = jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec()), expected)
    spec = PartitionSpec("data", None, None, ("fsdp", "tensor"))
    other["layers"]["attention"]["query"]["kernel"] = NamedSharding(mesh, spec)
    params, _ = load_sharded(folder, other, dtype=jnp.bfloat16)
    half = cast_weights(expected, jnp.bfloat16)
    query = params["layers"]["attention"]["query"]["kernel"]
    report["other"] = {"placed": query.sharding.spec == spec, "values": same(params, half)}
    return report


def add_one(tree):
    return jax.tree.map(lambda x: x + 1, tree)


def same(params, expected):
    """Tells whether every device's part is that part of the expected arrays."""
    return all(
        np.array_equal(part.data, value[part.index]) and part.data.dtype == value.dtype
        for array, value in zip(*map(jax.tree.leaves, (params, expected)), strict=True)
        for part in array.addressable_shards
    )


def memory():
    """Measures how far loading raises resident memory at its peak, pages of files included."""
    text, dtype = rest[:2]
    initialize(coordinator, int(processes), int(process))
    mesh = make_mesh(text)
    import safetensors  # noqa: F401

    before = status("VmRSS")
    params, _ = load_sharded(folder, mesh, dtype=dtype)
    peak = status("VmHWM") - before
    parts = [part.data for x in jax.tree.leaves(params) for part in x.addressable_shards]
    finite = all(bool(jnp.isfinite(part[:1]).all()) for part in parts)
    return {"peak": peak, "share": sum(part.nbytes for part in parts), "finite": finite}


def status(name):
    """Returns a figure of this process in bytes, as Linux counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])


print("REPORT", json.dumps({"equal": equal, "memory": memory}[job]()))
