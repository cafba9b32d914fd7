"""One of several processes that train the tiny answer agent on one mesh of four CPU devices.

python distributed_worker.py COORDINATOR PROCESSES ID FOLDER [CHECKPOINTS]

Process 0 writes to FOLDER what was found. With CHECKPOINTS, a folder that another run has left, the
newest state in it is restored onto another mesh, and found as well.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

coordinator, processes, process, folder, *checkpoints = sys.argv[1:]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPROC"] = "32"  # threads; one for each device is too few where two collectives overlap
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import quick_compile  # noqa: E402

quick_compile.use(devices=4 // int(processes))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from memr1_jax.parallel.distributed import (  # noqa: E402
    any_process,
    barrier,
    fetch,
    initialize,
    is_main,
    local_rows,
)

initialize(coordinator, int(processes), int(process))

from tiny_model import make_tiny, make_training, tiny_folder  # noqa: E402

from memr1_jax.models.hf.hf_weights import load_sharded  # noqa: E402
from memr1_jax.parallel.mesh import make_mesh  # noqa: E402
from memr1_jax.parallel.rules import batch_sharding  # noqa: E402
from memr1_jax.parallel.sharded_step import place, shard_train_step  # noqa: E402
from memr1_jax.rl.update import create_state, update  # noqa: E402
from memr1_jax.run.checkpoints import Checkpoints  # noqa: E402
from memr1_jax.training.step import compile_step  # noqa: E402

ROWS, STEPS = 4, 3
OPTIMIZER = optax.sgd(1e-2, momentum=0.0)


def start(mesh):
    """Arguments of the step on the mesh; weights come from their files, the rest from the host."""
    training = make_training("answer")
    params, _ = load_sharded(tiny_folder(), mesh)
    reference = jax.tree.map(lambda x: np.asarray(x) * np.float32(1.05), make_tiny().model.params)
    frozen = training.frozen.replace(reference=reference)
    state = create_state(params, OPTIMIZER, 0)
    return place(mesh, state, frozen, make_tiny().pair.tools, training.data)


def own_share(mesh, rows):
    """Returns the rows, with nonsense where another process holds them."""
    found = np.full_like(rows, -1)
    for index in batch_sharding(mesh).addressable_devices_indices_map(rows.shape).values():
        found[index] = rows[index]
    assert (found == -1).any() == (jax.process_count() > 1)
    return found


def train():
    mesh = make_mesh("fsdp:2,tensor:2")
    placed = start(mesh)
    training = make_training("answer")
    algorithm = dataclasses.replace(
        training.algorithm, kl_weight=0.1, entropy_weight=0.1, micro_batches=1
    )
    step = compile_step(update, training.policy, algorithm, OPTIMIZER)
    step = shard_train_step(step, mesh, *placed)
    state, found = placed.state, {}
    for number in range(STEPS):
        rows = ((np.arange(ROWS) + number) % training.data.rows).astype(np.int32)
        rows, valid = local_rows(mesh, own_share(mesh, rows)), local_rows(mesh, np.ones(ROWS, bool))
        state, metrics, rollout = step(state, *placed[1:], rows, valid)
        for name, mean in fetch(metrics).items():
            found[f"{number}/{name}"] = mean.sum, mean.weight
        found[f"{number}/tokens"] = fetch(rollout.samples.tokens)
    with Checkpoints(Path(folder) / "checkpoints") as saved:
        saved.save(STEPS, state, {"agent": "answer"})
    return found | named("params", fetch(state.params))


def restored():
    mesh = make_mesh("data:2,tensor:2")
    example = start(mesh).state
    with Checkpoints(checkpoints[0], read_only=True) as saved:
        state, meta = saved.restore(example)
    assert meta == {"agent": "answer"} and int(state.step) == STEPS
    for leaf, wanted in zip(*map(jax.tree.leaves, (state, example)), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
    return named("restored", fetch(state.params))


def named(prefix, tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{prefix}/{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


if __name__ == "__main__":
    found = train()
    if checkpoints:
        found |= restored()
    barrier("trained")
    agreed = [any_process(False), any_process(is_main()), any_process(True)]
    report = {"processes": jax.process_count(), "devices": jax.device_count(), "agreed": agreed}
    if is_main():
        np.savez(Path(folder) / "found.npz", **found)
        (Path(folder) / "report.json").write_text(json.dumps(report))
