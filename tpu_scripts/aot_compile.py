"""Compiles an experiment's train steps for a TPU that need not be there, and prints their memory.

python -m tpu_scripts.aot_compile --flagfile=FILE --topology=v5e:2x2 --mesh=fsdp:4
"""

import dataclasses
import os

from absl import flags

from experiments.command_line import define_flags, parsed, run
from memr1_jax.training.config import ExperimentConfig

define_flags(ExperimentConfig)
flags.DEFINE_string("topology", "v5e:2x2", "Chip and grid: v5e:2x2, v6e:2x4, v5p:2x2x1, ...")
if "mesh" not in flags.FLAGS:
    flags.DEFINE_string("mesh", "fsdp:-1", "Sizes of the mesh axes data, fsdp and tensor.")


def main() -> None:
    """Compiles the step of each agent that --agent names."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before anything looks for devices
    from memr1_jax.parallel.aot import abstract, compile_ahead, topology_devices
    from memr1_jax.parallel.mesh import make_mesh
    from memr1_jax.parallel.rules import batch_sharding
    from memr1_jax.parallel.step import check_batch, shard_train_step, step_shardings
    from memr1_jax.training.abstract import abstract_step
    from memr1_jax.training.experiment import algorithm_of
    from memr1_jax.training.step import make_train_step

    options = parsed(ExperimentConfig)
    if options.dtype == "auto":  # which would look at the processor of this machine
        options = dataclasses.replace(options, dtype="bfloat16")
    mesh = make_mesh(flags.FLAGS.mesh, topology_devices(flags.FLAGS.topology))
    check_batch(mesh, options.batch, options.micro_batches)
    agents = ("manager", "answer") if options.agent == "both" else (options.agent,)
    for agent in agents:
        made = abstract_step(options, algorithm_of(options), agent)
        *placed, rows, valid = made.arguments
        train_step = make_train_step(
            made.policy, made.algorithm, made.optimizer, reward=options.reward
        )
        step = shard_train_step(train_step, mesh, *placed)
        shardings = (*step_shardings(mesh, *placed), *[batch_sharding(mesh)] * 2)
        report, _ = compile_ahead(step, abstract((*placed, rows, valid), shardings))
        print(f"{agent}: {report}", flush=True)


if __name__ == "__main__":
    run(main)
