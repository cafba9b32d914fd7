"""Compiles an experiment's train steps for TPUs that need not be there; prints memory and cost.

python -m tpu_scripts.aot_compile --flagfile=FILE --topology=v5e:4x4

Without --mesh it proposes one: the first that fits, in the order of estimated communication.
"""

import os

from absl import flags

from experiments.command_line import define_flags, parsed, run
from memr1_jax.training.config import ExperimentConfig

define_flags(ExperimentConfig)
flags.DEFINE_string(
    "topology", "v5e:2x2", "Chip and grid: v5e:1x1, v5e:2x2, v6e:2x4, v5p:2x2x1, ..."
)


def main() -> None:
    """Compiles the step of each agent that --agent names."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before anything looks for devices
    from memr1_jax.planner.layout_search import fit_step

    options = parsed(ExperimentConfig)
    agents = ("manager", "answer") if options.agent == "both" else (options.agent,)
    for agent in agents:
        print(f"{agent}: {fit_step(options, agent, flags.FLAGS.topology)}", flush=True)


if __name__ == "__main__":
    run(main)
