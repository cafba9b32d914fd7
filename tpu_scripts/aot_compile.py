"""Compiles an experiment's train steps for TPUs that need not be there; prints memory and cost.

python -m tpu_scripts.aot_compile --flagfile=FILE --topology=v5e:4x4

Without --mesh it proposes one: the first that fits, in the order of estimated communication.
For one GPU, --topology=h200, memory and cost are estimated; nothing is compiled.
"""

import dataclasses
import os
from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.options import between, option
from memr1_jax.training.config import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class AotConfig(ExperimentConfig):
    """Choose the chips that are compiled for."""

    topology: str = option(
        "v5e:2x2", "Chip and grid: v5e:1x1, v5e:2x2, v6e:2x4, v5p:2x2x1, ...; or one GPU: h200."
    )
    distinct_prompts: float = option(
        1.0,
        "Share of the frozen Answer Agent's prompts that are distinct, for the least time: the"
        " metric of that name.",
        within=between(0, 1),
    )


def main(options: AotConfig) -> None:
    """Compiles the step of each agent that --agent names."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before anything looks for devices
    import jax

    from memr1_jax.planner.chips import gpu_named
    from memr1_jax.planner.layout_search import estimate_step, fit_step

    gpu = gpu_named(options.topology)
    agents = ("manager", "answer") if options.agent == "both" else (options.agent,)
    for agent in agents:
        if gpu is not None:
            fit = estimate_step(options, agent, jax.devices("cpu")[:1], gpu)
        else:
            fit = fit_step(options, agent, options.topology)
        print(f"{agent}: {fit.with_distinct(options.distinct_prompts)}", flush=True)


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(AotConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
