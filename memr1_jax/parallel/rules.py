"""One table from the names of parameters to their place on the mesh.

Every array is looked up by the end of its path, so the table serves parameters, reference weights
and the optimiser's moments alike, stacked over layers or not.
"""

import re
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

BATCH = ("data", "fsdp")  # leading axes of prompts, samples, caches and banks
HEADS = "tensor"

# Mesh axes of the last axes of a parameter. Heads and the feed-forward width lie over "tensor", the
# model width over "fsdp". Tables are split by vocabulary alone: a lookup in a table that is split
# by width as well makes the compiler gather it whole. The rest is on every device.
RULES: tuple[tuple[str, tuple], ...] = (
    (r"embedding", ((HEADS, "fsdp"), None)),  # [V, D]
    (r"(query|key|value)/kernel", ("fsdp", HEADS, None)),  # [D, N, H] or [D, K, H]
    (r"(query|key|value)/bias", (HEADS, None)),  # [N, H] or [K, H]
    (r"attention/output/kernel", (HEADS, None, "fsdp")),  # [N, H, D]
    (r"(gate|up)/kernel", ("fsdp", HEADS)),  # [D, F]
    (r"down/kernel", (HEADS, "fsdp")),  # [F, D]
    (r"scale", (None,)),  # [D]
    # Adapters: where the kernel's inputs or outputs lie, and the rank r whole.
    (r"(query|key|value|gate|up)/lora_a", ("fsdp", None)),  # [D, r]
    (r"attention/output/lora_a", (HEADS, None, None)),  # [N, H, r]
    (r"down/lora_a", (HEADS, None)),  # [F, r]
    (r"(query|key|value)/lora_b", (None, HEADS, None)),  # [r, N, H] or [r, K, H]
    (r"(gate|up)/lora_b", (None, HEADS)),  # [r, F]
    (r"(attention/output|down)/lora_b", (None, "fsdp")),  # [r, D]
)


def partition_spec(
    mesh: Mesh | AbstractMesh, name: str, shape: tuple[int, ...], without: tuple[str, ...] = ()
) -> PartitionSpec:
    """Returns the rule for parameter `name`, a path with slashes, fitted to shape and mesh.

    An axis that does not divide evenly is not split: key/value heads that do not divide the tensor
    axis, for one, are on all its devices. Mesh axes in `without` are left out.

    Raises:
      ValueError: the rule uses a mesh axis twice.
    """
    for pattern, rule in RULES:
        if re.search(rf"(^|/)({pattern})$", name) and len(shape) >= len(rule):
            return fitted(mesh, (None,) * (len(shape) - len(rule)) + rule, shape, without)
    return PartitionSpec()


def fitted(
    mesh: Mesh | AbstractMesh, axes: tuple, shape: tuple[int, ...], without: tuple[str, ...] = ()
) -> PartitionSpec:
    """Drops from `axes` (a mesh axis, several or None per array axis) those that do not divide.

    Raises:
      ValueError: a mesh axis is used twice.
    """
    wanted = [(axis,) if isinstance(axis, str) else tuple(axis or ()) for axis in axes]
    used = [name for names in wanted for name in names]
    if len(used) != len(set(used)):
        raise ValueError(f"{axes} uses an axis of the mesh twice: an array is split by it once.")
    spec = []
    for names, size in zip(wanted, shape, strict=True):
        kept, parts = [], 1
        for name in names:
            if name not in without and size % (parts * mesh.shape[name]) == 0:
                kept.append(name)
                parts *= mesh.shape[name]
        spec.append(tuple(kept) or None)
    return PartitionSpec(*spec)


def param_shardings(mesh: Mesh, params: Any) -> Any:
    """Returns shardings of all leaves, arrays or abstract, by name; others are replicated."""

    def sharding(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition_spec(mesh, name, leaf.shape))

    return jax.tree_util.tree_map_with_path(sharding, params)


def state_shardings(mesh: Mesh, state: Any) -> Any:
    """Returns shardings of a train state: moments carry the names of their parameters."""
    return param_shardings(mesh, state)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that is the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the leading axis over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH))
