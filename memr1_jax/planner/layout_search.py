"""Finds whether and on which mesh a train step fits TPUs, and its least cost there.

Meshes are ordered by an estimate of what they send over the network, those that clearly do not fit
are left out, and the others are compiled in that order until one fits.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.options import with_options
from memr1_jax.parallel.mesh import make_mesh
from memr1_jax.parallel.sharded_step import check_batch, shard_train_step
from memr1_jax.planner.abstract import AbstractStep, abstract_step
from memr1_jax.planner.aot import (
    CompileReport,
    CompilerFailed,
    abstract,
    compile_ahead,
    topology_devices,
)
from memr1_jax.planner.chips import GIB, Chip, chip_of
from memr1_jax.planner.estimates import (
    ANSWERING,
    Estimate,
    argument_shardings,
    estimate,
    layout_mesh,
    step_work,
)
from memr1_jax.planner.roofline import Layout, Work
from memr1_jax.training.config import ExperimentConfig

ROUGH = 1.1  # an estimate may be too high by this factor before its mesh is left out
ATTEMPTS = 4  # compilations at most


@dataclasses.dataclass(frozen=True)
class Fit:
    """A step that fits: its layout, its memory as compiled or estimated, its phases' work."""

    layout: Layout
    report: CompileReport | Estimate
    work: dict[str, Work]
    chip: Chip

    def seconds(self) -> dict[str, float]:
        """Returns the least seconds of each phase."""
        devices = self.layout.rows * self.layout.tensor
        return {name: w.seconds(self.chip, devices) for name, w in self.work.items()}

    def with_distinct(self, share: float) -> "Fit":
        """Returns the fit with that share of the work of answering a manager's questions.

        A step takes time for distinct prompts alone, but has room for all of them.
        """
        work = {name: w.times(share if name in ANSWERING else 1) for name, w in self.work.items()}
        return dataclasses.replace(self, work=work)

    def __str__(self) -> str:
        """Returns lines to print."""
        seconds = self.seconds()
        phases = [
            f"{name}: {work.flops:.3g} FLOPs, {work.bytes / GIB:.3g} GiB moved per chip,"
            f" at least {seconds[name]:.3g} s"
            for name, work in self.work.items()
        ]
        total = f"all of it: at least {sum(seconds.values()):.3g} s a step"
        return "\n".join([str(self.layout), str(self.report), *phases, total])


class DoesNotFit(UserError):
    """A step that fits on no mesh.

    `least` is the estimate of the mesh that needs the least memory, `usable` what a device has, and
    `attempts` how many meshes were compiled for.
    """

    def __init__(self, message: str, least: Estimate, usable: int, attempts: int):
        """Keeps the figures with the message."""
        super().__init__(message)
        self.least, self.usable, self.attempts = least, usable, attempts


def fit_step(
    options: ExperimentConfig,
    agent: str,
    topology: str,
    say: Callable[[str], None] = print,
) -> Fit:
    """Compiles the step of "manager" or "answer" for a topology such as "v5e:4x4".

    Uses --mesh where it is given, else the first mesh that fits. `say` is told what is tried.

    Raises:
      DoesNotFit: the step is too large on every mesh that was tried.
      CompilerFailed: it is on some, and on others the compiler failed.
      UserError: options or topology are not usable, or the step does not fit on --mesh.
    """
    options = _in_bfloat16(options)
    devices = topology_devices(topology)
    chip = chip_of(devices[0].device_kind)
    if options.mesh:
        mesh = make_mesh(options.mesh, devices)
        check_batch(mesh, options.batch, options.policy.micro_batches, options.policy.mini_batches)
        layout = Layout(**mesh.shape, micro_batches=options.policy.micro_batches)
        return _fit(abstract_step(options, agent), options, layout, devices, chip)
    made = abstract_step(options, agent)
    candidates, failed = propose(made, options, devices, chip), None
    for candidate in candidates:
        layout = candidate.layout
        say(f"trying {layout}, estimated at {candidate.memory / GIB:.1f} GiB")
        if layout.micro_batches != options.policy.micro_batches:
            options = with_options(options, micro_batches=layout.micro_batches)
            made = abstract_step(options, agent)
        try:
            return _fit(made, options, layout, devices, chip)
        except UserError as error:
            say(str(error))
            failed = error if isinstance(error, CompilerFailed) else failed
    if failed is not None:  # on that mesh it might have fitted
        raise failed
    least = min(candidates, key=lambda candidate: candidate.memory)
    message = f"The step fits on no mesh of {len(devices)} x {chip.name} that was tried."
    raise DoesNotFit(message, least, chip.usable, len(candidates))


def estimate_step(options: ExperimentConfig, agent: str, devices: Sequence[Any], chip: Chip) -> Fit:
    """Estimates the step of "manager" or "answer" on the mesh that would be compiled first.

    Of meshes that are worth compiling, the first that the estimate fits on; else the smallest. Any
    devices stand in for those of a chip that nothing is compiled for here.

    Raises:
      DoesNotFit: the step is too large on every mesh.
    """
    options = _in_bfloat16(options)
    made = abstract_step(options, agent)
    candidates = propose(made, options, devices, chip)
    best = next((c for c in candidates if c.memory < chip.usable), candidates[-1])
    return Fit(best.layout, best, step_work(made, options, best.layout), chip)


def _in_bfloat16(options: ExperimentConfig) -> ExperimentConfig:
    """Settles --dtype=auto, which would look at the processor of this machine."""
    return dataclasses.replace(options, dtype="bfloat16") if options.dtype == "auto" else options


def propose(
    made: AbstractStep, options: ExperimentConfig, devices: Sequence[Any], chip: Chip
) -> list[Estimate]:
    """Lists layouts of all `devices` worth compiling: least communication first, smallest last.

    Raises:
      DoesNotFit: all are too large.
      UserError: none can be formed.
    """
    found = [
        estimate(made, options, devices, layout)
        for layout in layouts(options, len(devices), made.policy.decoder.config.num_heads)
    ]
    if not found:
        raise UserError(
            f"--batch={options.batch} cannot be divided over {len(devices)} devices and the heads"
            " of the model. Choose a batch with more divisors, or fewer chips."
        )
    least = min(found, key=lambda candidate: candidate.memory)
    fitting = [
        candidate
        for candidate in found
        if candidate.arguments < chip.usable and candidate.memory < ROUGH * chip.usable
    ]
    if not fitting:
        raise DoesNotFit(
            f"The step does not fit onto {len(devices)} x {chip.name} on any mesh. The best,"
            f" {least.layout}, needs about {least.memory / GIB:.1f} GiB a chip,"
            f" {least.arguments / GIB:.1f} GiB of it arguments; {chip.usable / GIB:.2f} GiB are"
            " usable. Use more chips, or adapters with --lora_rank.",
            least,
            chip.usable,
            0,
        )
    ordered = sorted(fitting, key=lambda candidate: candidate.sent)[: ATTEMPTS - 1]
    return ordered if least in ordered else [*ordered, least]


def layouts(options: ExperimentConfig, devices: int, num_heads: int) -> Iterator[Layout]:
    """Yields layouts that use all devices, with at least one prompt and one head on each.

    Micro-batches are as many as --micro_batches, or the next fewer that divide the batch.
    """
    for tensor in _divisors(math.gcd(devices, num_heads)):
        rows = devices // tensor
        prompts, rest = divmod(options.batch, rows * options.policy.mini_batches)
        if rest:
            continue
        parts = max(n for n in _divisors(prompts) if n <= options.policy.micro_batches)
        for fsdp in _divisors(rows):
            yield Layout(rows // fsdp, fsdp, tensor, parts)


def _fit(made, options, layout, devices, chip):
    mesh = layout_mesh(layout, devices)
    *placed, _, _ = made.arguments
    step = shard_train_step(made.step, mesh, *placed)
    report, _ = compile_ahead(step, abstract(made.arguments, argument_shardings(made, mesh)))
    if report.peak > chip.usable:
        raise UserError(f"The step does not fit:\n{report}")
    return Fit(layout, report, step_work(made, options, layout), chip)


def _divisors(number):
    return [n for n in range(1, number + 1) if number % n == 0]
