"""Several processes, one for each host: how they start, feed their devices, and agree.

With one process every function here is trivial, so callers need not ask how many there are. All
processes must call `fetch`, `barrier` and `any_process` together, in the same order.
"""

import socket
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from memr1_jax.errors import UserError
from memr1_jax.parallel.rules import batch_sharding


def initialize(coordinator: str, num_processes: int = 1, process_id: int = 0) -> None:
    """Joins this process to the others; call it before anything looks for devices.

    Waits for the others. If one is missing after five minutes, JAX ends the process with a trace.

    Args:
      coordinator: host:port of process 0, the same for all; "auto" to read it and the numbers from
        the environment of a TPU, Slurm or Kubernetes job; "" for a process on its own.
      num_processes: of the whole run; unused with "auto".
      process_id: of this one, from 0; unused with "auto".

    Raises:
      UserError: the numbers do not fit, there is no such environment, or the port is in use.
    """
    if not coordinator:
        return
    numbers = {}
    if coordinator != "auto":
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(
                f"--distributed={coordinator} is not host:port. Give the address of process 0 and a"
                " free port, such as 10.0.0.2:8476, or auto."
            )
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id={process_id} does not fit --num_processes={num_processes}. Give"
                " every process a number of its own, from 0 to one less than there are."
            )
        numbers = {"num_processes": num_processes, "process_id": process_id}
        numbers["coordinator_address"] = coordinator
        if process_id == 0:
            _check_port(coordinator, int(port))
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of no effect elsewhere
    try:
        jax.distributed.initialize(**numbers)
    except ValueError as error:
        raise UserError(
            f"--distributed={coordinator} finds no cluster ({error}). Give host:port with"
            " --num_processes and --process_id."
        ) from error


def _check_port(address, port):
    """Raises UserError where the port is in use; jaxlib may crash instead of saying so."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except OSError as error:
        raise UserError(
            f"Process 0 cannot listen at --distributed={address} ({error.strerror}). Choose another"
            " port, the same for all."
        ) from error


def is_main() -> bool:
    """Tells whether this is the process that writes and prints."""
    return jax.process_index() == 0


def local_rows(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """Splits a batch `[B, ...]` over the mesh; each process gives what its devices hold.

    Args:
      mesh: from `make_mesh`.
      rows: row numbers or whatever else belongs to the batch, in its full shape; entries that
        other processes hold are not looked at.
    """
    return jax.make_array_from_callback(
        rows.shape, batch_sharding(mesh), lambda index: np.asarray(rows[index])
    )


def fetch(tree: Any) -> Any:
    """Fetches arrays as NumPy to every process, whichever processes' devices hold them."""
    return jax.tree.map(_fetch, tree)


def barrier(name: str) -> None:
    """Waits until all processes are here; `name` tells apart the places where they wait."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
    """Tells whether the flag is up on any process; the same answer on all."""
    if jax.process_count() == 1:
        return bool(flag)
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def _fetch(leaf):
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    everywhere = leaf.sharding.update(spec=PartitionSpec())
    if leaf.ndim < 3 or leaf.sharding.spec[0] is not None:
        return np.asarray(jax.jit(lambda x: x, out_shardings=everywhere)(leaf))
    # Layer by layer: a device may have no room for all layers of a stacked weight.
    pick = jax.jit(
        lambda x, layer: jax.lax.dynamic_index_in_dim(x, layer, keepdims=False),
        out_shardings=everywhere,
    )
    result = np.empty(leaf.shape, leaf.dtype)
    for layer in range(leaf.shape[0]):
        result[layer] = pick(leaf, layer)
    return result
