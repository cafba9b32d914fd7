"""Writes docs/tpu_fit.md: which train steps fit onto which TPUs, by the TPU's own compiler.

python -m tpu_scripts.tpu_fit

Every result is added to --results at once, so that an interrupted run resumes where it was. A step
that fits onto fewer or smaller chips is not compiled again for more, unless with --exhaustive.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from experiments.command_line import run
from memr1_jax.options import option, with_options
from memr1_jax.run.files import writable_file
from memr1_jax.run.json_files import json_line, loads
from memr1_jax.run.markdown import markdown_table
from memr1_jax.training.config import ExperimentConfig

# Names and libtpu topologies, smaller ones first.
CHIPS = {
    "v5e-1": "v5e:1x1",
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v6e-8": "v6e:2x4",
    "v5p-8": "v5p:2x2x2",
    "v5p-64": "v5p:4x4x4",
}
TARGETS = {"v5e-64": "v5e:8x8", "v5p-16": "v5p:2x2x4"}
MODELS = ("smollm2-135m", "llama-3.2-1b", "qwen2.5-3b", "qwen3-4b", "llama-3.1-8b", "qwen2.5-14b")
PAPER = {
    "max_prompt_length": 4096,
    "manager_response_length": 2048,
    "answer_response_length": 2048,
    "batch": 16,
    "group": 8,
    "micro_batches": 16,
    "manager_prompt": "full",
    "answer_prompt": "full",
    "memory_width": 64,
    "bank_capacity": 256,
}
COLAB = {
    "max_prompt_length": 1024,
    "manager_response_length": 128,
    "answer_response_length": 128,
    "batch": 8,
    "group": 8,
    "micro_batches": 8,
    "constrained": True,
    "memories": 10,
    "neighbours": 4,
    "memories_shown": 10,
    "bank_capacity": 192,
    "facts_per_turn": 3,
    "questions_per_turn": 2,
    "kl_weight": 0.0,
}
# Kaggle lends eight chips: four times the prompts, spread over them.
KAGGLE = COLAB | {"batch": 32, "micro_batches": 4, "consult_batch": 256}
RANK = 16
# Ranks of the adapters; 0: all weights are trained.
ON_KAGGLE = {"qwen3-0.6b": 0, "gemma-3-1b": RANK}
ON_ONE_CHIP = {
    "qwen2.5-0.5b": 0,
    "qwen3-0.6b": 0,
    "llama-3.2-1b": RANK,
    "gemma-3-1b": RANK,
    "smollm2-135m": 0,
}
CONSULT_BATCH = 128
CONSULT_OF_LARGE_KEYS = {"qwen3-0.6b": 32}  # on one chip, where 128 would not fit
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class TPUFitConfig:
    """Choose what is compiled, and where the results are written."""

    results: str = option("docs/tpu_fit.jsonl", "Results of all compilations, one a line.")
    output: str = option("docs/tpu_fit.md", "The page.")
    only: str = option("", "Compile only cells whose key contains this text.")
    exhaustive: bool = option(False, "Compile for more chips where fewer are enough as well.")
    compile: bool = option(True, "Compile what is missing; else write the page from results.")
    estimate: bool = option(
        False, "Estimate what is missing instead of compiling it, in seconds instead of minutes."
    )


@dataclasses.dataclass(frozen=True)
class Cell:
    """One line of a table: a step and the chips that it is compiled for."""

    table: str
    model: str
    chips: str
    topology: str
    agent: str = "answer"
    algorithm: str = "grpo"
    lora_rank: int = 0

    @property
    def key(self) -> str:
        """The name of its result."""
        trained = f"lora{self.lora_rank}" if self.lora_rank else "full"
        parts = (self.table, self.model, trained, self.agent, self.algorithm, self.chips)
        return "/".join(parts)

    @property
    def step(self) -> str:
        """The key without the chips."""
        return self.key.rsplit("/", 1)[0]

    def options(self) -> ExperimentConfig:
        """Makes the options of the experiment."""
        sizes = {"colab": COLAB, "kaggle": KAGGLE}.get(self.table, PAPER)
        if self.algorithm == "ppo":  # as many responses, each to its own prompt
            sizes = sizes | {"batch": sizes["batch"] * sizes["group"], "group": 1}
            sizes["micro_batches"] = sizes["batch"]
        if self.table == "colab" and self.model in CONSULT_OF_LARGE_KEYS:
            sizes = sizes | {"consult_batch": CONSULT_OF_LARGE_KEYS[self.model]}
        elif self.agent == "manager" and self.table in ("target", "paper"):
            sizes = sizes | {"consult_batch": CONSULT_BATCH}  # of 512 prompts of the answerer
        return with_options(
            ExperimentConfig(),
            model=self.model,
            algorithm=self.algorithm,
            lora_rank=self.lora_rank,
            remat="full",
            dtype="bfloat16",
            **sizes,
        )


def cells() -> list[Cell]:
    """Lists all cells, in the order in which they are compiled."""
    found = [
        Cell("colab", model, "v5e-1", "v5e:1x1", agent, lora_rank=rank)
        for model, rank in ON_ONE_CHIP.items()
        for agent in ("answer", "manager")
    ]
    found += [
        Cell("kaggle", model, "v5e-8", "v5e:2x4", agent, lora_rank=rank)
        for model, rank in ON_KAGGLE.items()
        for agent in ("answer", "manager")
    ]
    for chips, topology in TARGETS.items():
        found += [
            Cell("target", "llama-3.1-8b", chips, topology, agent, algorithm)
            for algorithm in ("grpo", "ppo")
            for agent in ("answer", "manager")
        ]
    return found + [
        Cell("paper", model, chips, topology, lora_rank=rank)
        for model in MODELS
        for rank in (0, RANK)
        for chips, topology in CHIPS.items()
    ]


def compiled(cell: Cell) -> dict:
    """Compiles one cell; returns what the compiler says, or why there is nothing to compile."""
    from memr1_jax.errors import UserError
    from memr1_jax.planner.layout_search import DoesNotFit, fit_step

    try:
        fit = fit_step(cell.options(), cell.agent, cell.topology)
    except DoesNotFit as error:
        return _does_not_fit(error)
    except UserError as error:
        return {"fits": False, "why": str(error)}
    return {
        "fits": True,
        "layout": str(fit.layout),
        "peak": fit.report.peak,
        "arguments": fit.report.arguments,
        "temporaries": fit.report.temporaries,
        "compile_seconds": round(fit.report.seconds, 1),
        "least_seconds": round(sum(fit.seconds().values()), 2),
    }


def estimated(cell: Cell) -> dict:
    """Estimates one cell by the planner's arithmetic, on the mesh that it would compile first."""
    from memr1_jax.planner.aot import topology_devices
    from memr1_jax.planner.chips import chip_of
    from memr1_jax.planner.layout_search import DoesNotFit, estimate_step

    devices = topology_devices(cell.topology)
    chip = chip_of(devices[0].device_kind)
    try:
        fit = estimate_step(cell.options(), cell.agent, devices, chip)
    except DoesNotFit as error:
        return _does_not_fit(error)
    return {
        "fits": fit.report.memory < chip.usable,
        "estimated": True,
        "layout": str(fit.layout),
        "peak": round(fit.report.memory),
        "arguments": fit.report.arguments,
        "usable": chip.usable,
        "attempts": 0,
        "least_seconds": round(sum(fit.seconds().values()), 2),
    }


def _does_not_fit(error) -> dict:
    return {
        "fits": False,
        "arguments": error.least.arguments,
        "usable": error.usable,
        "attempts": error.attempts,
        "why": str(error),
    }


def implied(cell: Cell, results: dict[str, dict]) -> str:
    """Names chips, no more and no larger than the cell's, onto which the step fits; or ""."""
    from memr1_jax.planner.chips import CHIPS as SPECS

    usable = {spec.name: spec.usable for spec in SPECS.values()}

    def size(chips):
        name, count = chips.split("-")
        return usable[name], int(count)

    memory, count = size(cell.chips)
    for chips in (*CHIPS, *TARGETS):
        less, fewer = size(chips)
        found = results.get(f"{cell.step}/{chips}")
        if chips != cell.chips and less <= memory and fewer <= count and found and found["fits"]:
            return chips
    return ""


def read_results(path: Path) -> dict[str, dict]:
    """Reads results by key; of several the last counts, half a line at the end does not."""
    results = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            result = loads(line)
        except ValueError:
            continue
        results[result.pop("key")] = result
    return results


def page(results: dict[str, dict]) -> str:
    """Writes the whole page."""
    tables = {"colab": [], "kaggle": [], "target": [], "paper": []}
    for cell in cells():
        tables[cell.table].append(_row(cell, results))
    columns = ("model", "trained", "agent", "algorithm", "chips", "layout", "peak HBM a chip")
    columns += ("fits", "at least")
    text = {name: markdown_table(columns, rows, len(columns)) for name, rows in tables.items()}
    return f"""# What fits onto which TPU

Compiled with libtpu, the TPU's own compiler, on a machine without a TPU; nothing was run. Peak HBM
is what the compiled train step (rollout, rewards, update) takes of a chip: arguments, temporaries,
results and code; "about" marks the planner's estimate of a step that was not compiled
(`--estimate`). "At least" is the roofline of a whole step at full lengths: model FLOPs at the
chips' peak, or unavoidable traffic at their memory's bandwidth, whichever is longer
(`memr1_jax/planner/roofline.py`); a real step takes longer. Full fine-tuning keeps float32 weights
and both moments of AdamW; LoRA has rank {RANK} on all projections. Remat is "full".

`python -m tpu_scripts.tpu_fit` writes this page; its results are in `tpu_fit.jsonl`. One experiment
is compiled by `python -m tpu_scripts.aot_compile --flagfile=FILE --topology=v5e:4x4`.

## One chip, as Colab lends it

Prompts of {COLAB["max_prompt_length"]} tokens, responses of {COLAB["answer_response_length"]},
{COLAB["batch"]} prompts with {COLAB["group"]} samples each. A manager's step includes the frozen
Answer Agent, which answers all 128 prompts at once, with qwen3-0.6b
{CONSULT_OF_LARGE_KEYS["qwen3-0.6b"]} at a time.

{text["colab"]}

## Eight chips, as Kaggle lends them

The same lengths, {KAGGLE["batch"]} prompts with {KAGGLE["group"]} samples each; the frozen Answer
Agent answers {KAGGLE["consult_batch"]} prompts at a time.

{text["kaggle"]}

## The paper's lengths: Llama-3.1-8B, both agents and both algorithms

Prompts of {PAPER["max_prompt_length"]} tokens, responses of {PAPER["answer_response_length"]}, 128
responses a step: {PAPER["batch"]} prompts with {PAPER["group"]} samples each, in PPO 128 prompts. A
manager's step includes the frozen Answer Agent, which answers four questions on each of the 128
edited banks, {CONSULT_BATCH} prompts at a time.

{text["target"]}

## The paper's lengths: the Answer Agent's step of all models

The same lengths and responses. `--attention=auto` compiles JAX's splash attention into every step
for a TPU. The Answer Agent's step of llama-3.1-8b on 16 v5e, all weights trained, is such a
program; the other rows are from before, when XLA computed attention in parts. The same step on the
same mesh then took 14.96 GiB: the parts had already kept scores out of a chip's memory, so that the
kernel does not make fewer chips enough.

{text["paper"]}
"""


def _row(cell, results):
    result = results.get(cell.key)
    layout = peak = least = ""
    if result is None:
        smaller = implied(cell, results)
        fits = f"yes, as onto {smaller}" if smaller else "not compiled"
    elif result["fits"]:
        fits, layout = "yes", result["layout"].replace("--mesh=", "").replace("--", "")
        peak, least = f"{result['peak'] / GIB:.2f} GiB", f"{result['least_seconds']:.3g} s"
        if result.get("estimated"):
            fits, peak = "yes, by estimate", f"about {result['peak'] / GIB:.0f} GiB"
    elif "compiler failed" in result.get("why", ""):
        fits = "unknown: the compiler fails with an error of its own"
    elif "arguments" not in result:
        fits = "no: the batch and the heads do not divide over so many chips"
    else:
        alone = result["arguments"] / GIB
        fits = "no"
        if result["arguments"] > result["usable"]:
            fits = f"no (arguments alone {alone:.1f} GiB)"
        elif not result["attempts"]:
            fits = f"no, by estimate (arguments {alone:.1f} GiB)"
    trained = f"LoRA {cell.lora_rank}" if cell.lora_rank else "full"
    names = (cell.model, trained, cell.agent, cell.algorithm.upper(), cell.chips)
    return (*names, layout, peak, fits, least)


def main(options: TPUFitConfig) -> None:
    """Compiles what is missing and writes the page."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before anything looks for devices
    import jax

    path, written = writable_file(options.results, "results"), writable_file(options.output)
    results = read_results(path)
    for cell in cells() if options.compile else ():
        found = results.get(cell.key)
        known = found and (options.estimate or not found.get("estimated"))
        if known or options.only not in cell.key:
            continue
        if not options.exhaustive and implied(cell, results):
            continue
        print(cell.key, flush=True)
        results[cell.key] = estimated(cell) if options.estimate else compiled(cell)
        with path.open("a") as file:
            file.write(json_line({"key": cell.key} | results[cell.key]))
        jax.clear_caches()
    written.write_text(page(results))


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(TPUFitConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
