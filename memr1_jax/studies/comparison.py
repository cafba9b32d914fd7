"""What comparisons of runs of the nano model share: options, dialogues, runs that are done once.

A comparison has a folder with generated dialogues and a run folder for each of its runs. A run that
an earlier call finished is read, one that was stopped is gone on with.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memr1_jax.data.locomo import load_conversations, split
from memr1_jax.data.synthetic import write_synthetic
from memr1_jax.options import flags_text, with_options
from memr1_jax.run.files import prepare_run_folder, write_json_atomic
from memr1_jax.run.metrics_log import read_metrics, records_of
from memr1_jax.run.preemption import Preempted
from memr1_jax.studies.nano import NANO_DIALOGUES, NANO_SIZES
from memr1_jax.training.config import ExperimentConfig

if TYPE_CHECKING:
    from memr1_jax.studies.measure import Yardstick
    from memr1_jax.training.experiment import Experiment

AGENTS = ("answer", "manager")


def nano_options(**changes: Any) -> ExperimentConfig:
    """A run from the nano model on generated dialogues as comparisons have it, with `changes`.

    The Answer Agent learns first, on banks as they should be. Without a KL penalty, which would
    hold a policy near a start that is meant to be left.
    """
    common = {
        **NANO_SIZES,
        "data": "locomo",  # the format of the file
        "eval_split": "test",
        "first": "answer",
        "training_banks": "gold",
        "window": 0,
        "weight_decay": 0.0,
        "kl_weight": 0.0,
        "evaluate": False,
        "resume": True,  # a folder that holds nothing yet is begun
        "checkpoint_every": 50,
        "keep": 1,
        "samples_every": 20,
        "eval_batch": 32,
    }
    return with_options(ExperimentConfig(), **common | changes)


def open_folder(output: str) -> Path:
    """The folder of a comparison, where what one run compiles serves the next."""
    folder = prepare_run_folder(output, resume=True)
    _share_compiled(folder / "compiled")
    return folder


def write_dialogues(path: Path, seed: int, train: int, test: int, **sizes: float) -> None:
    """Writes generated dialogues of the nano model's kind, unless the file is there.

    Args:
      path: the file, in LoCoMo's format.
      seed: of the dialogues.
      train: dialogues to learn from.
      test: dialogues to measure on.
      **sizes: arguments of `data.synthetic.generate` other than those of `NANO_DIALOGUES`.
    """
    if path.exists():
        return
    part = path.with_suffix(".part")  # a call that is killed leaves no half of the file
    write_synthetic(part, seed, train=train, validation=0, test=test, **NANO_DIALOGUES | sizes)
    part.replace(path)


def run_to_its_end(
    title: str, options: ExperimentConfig, measure: Callable[["Experiment"], dict[str, Any]]
) -> dict[str, Any]:
    """Does what is left of a run and of its measuring.

    Args:
      title: printed where there is something left to do.
      options: of the run, with `resume`.
      measure: turns the finished experiment into what `measured.json` keeps.

    Returns:
      What `measure` returned, and "steps": records of `metrics.jsonl` by agent.
    """
    from memr1_jax.training.experiment import Experiment

    folder = Path(options.output)
    measured = folder / "measured.json"
    if not _finished(folder, options):
        print(f"== {title}", flush=True)
        measured.unlink(missing_ok=True)
        experiment = Experiment(options)
        try:
            experiment.run()
        except Preempted as stopped:
            raise Preempted("Stopped, as asked. The same command resumes here.") from stopped
        write_json_atomic(measured, measure(experiment))
    records = read_metrics(folder / "metrics.jsonl")
    steps = {agent: records_of(records, agent, "train") for agent in AGENTS}
    return {"steps": steps, **json.loads(measured.read_text(encoding="utf-8"))}


def held_out(experiment: "Experiment") -> "Yardstick":
    """What measures the agents of an experiment on the dialogues that it does not learn from."""
    from memr1_jax.studies.measure import Yardstick

    options = experiment.options
    dialogues = split(load_conversations(options.data_path), options.eval_split)
    return Yardstick(options, experiment.bench, experiment.models, dialogues)


def _finished(folder: Path, options: ExperimentConfig) -> bool:
    """Whether the folder holds all that the options ask for, made with just these options."""
    flags = folder / "flags.txt"
    if not flags.exists() or flags.read_text(encoding="utf-8") != flags_text(options):
        return False  # `Experiment` says what differs
    records = read_metrics(folder / "metrics.jsonl")
    steps = {"answer": options.answer_steps, "manager": options.manager_steps}
    wanted = {
        agent: count for agent, count in steps.items() if options.agent in (agent, "both") and count
    }
    done = {record["agent"]: record["step"] for record in records}
    return done == wanted and (folder / "measured.json").exists()


def _share_compiled(folder: Path) -> None:
    """Sets the cache of compiled programs, unless the user has named another place for it."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
