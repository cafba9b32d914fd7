"""Runs a study of the nano model: a list of named configurations, and the tables made of them.

A study has a folder with generated dialogues and a run folder for each configuration. A run that an
earlier call finished is read, one that was stopped is resumed.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memr1_jax.data.locomo import load_conversations, split
from memr1_jax.data.synthetic import write_synthetic
from memr1_jax.flags import read_flags
from memr1_jax.models.hf.folders import folder_digest
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.options import flag_values, flags_text, with_options
from memr1_jax.run.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from memr1_jax.run.json_files import read_json_object
from memr1_jax.run.markdown import markdown_table
from memr1_jax.run.metrics_log import read_metrics, records_of
from memr1_jax.run.preemption import Preempted
from memr1_jax.run.progress import table
from memr1_jax.run.run_folder import RECORDS, Input, RunFolder
from memr1_jax.studies.nano import NANO_DIALOGUES, NANO_SIZES
from memr1_jax.training.config import ExperimentConfig

if TYPE_CHECKING:
    from memr1_jax.studies.measure import HeldOutDialogues
    from memr1_jax.training.experiment import Experiment

AGENTS = ("answer", "manager")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a study: cells as text, the first `labels` columns of them names, and a note."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    note: str = ""

    @property
    def markdown(self) -> str:
        """The table below its title and above its note."""
        grid = markdown_table(self.columns, self.rows, self.labels, self.title)
        return f"{grid}\n\n{self.note}" if self.note else grid


def nano_options(**changes: Any) -> ExperimentConfig:
    """Returns a run from the nano model on generated dialogues as studies have it, with `changes`.

    The Answer Agent learns first, on banks as they should be. Without a KL penalty, which would
    hold a policy near a start that is meant to be left.
    """
    common = {
        **NANO_SIZES,
        "model_settings": False,  # all sizes are said here
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


def flags_of_file(name: str) -> dict[str, Any]:
    """Returns the values that a flag file gives, by flag; of no file, none."""
    if not name:
        return {}
    found, given = read_flags(ExperimentConfig, [f"--flagfile={name}"])
    values = flag_values(found)
    return {flag: values[flag] for flag in given}


def dialogues_of_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments of `data.synthetic.generate` from the flags `--synthetic_*` that are given.

    How many dialogues there are is the study's own option.
    """
    begin, counts = "synthetic_", ("train", "eval")
    names = {"sessions": "num_sessions", "facts": "facts_per_session"}
    found = {flag.removeprefix(begin): given[flag] for flag in given if flag.startswith(begin)}
    return {names.get(name, name): found[name] for name in found if name not in counts}


def open_folder(options: Any, job: str, free: Collection[str]) -> RunFolder:
    """Holds the folder of a study until this process ends.

    Programs that one run compiles there serve the next.

    Args:
      options: of the study, with `output`, `overwrite` and `model`.
      job: the study, in a word.
      free: options that add runs or steps; a call with the same folder may change them.
    """
    opened = RunFolder(
        options.output,
        job,
        options,
        resume=True,
        overwrite=options.overwrite,
        free={"output", "overwrite", "compilation_cache", "model", *free},
        marks=RECORDS,
    )
    digest = folder_digest(resolve_model(options.model))
    opened.record({"--model": Input(options.model, digest)})
    _share_compiled(opened.path / "compiled")
    return opened


def write_dialogues(
    path: Path, seed: int, train: int, test: int, *, again: bool = False, **sizes: float
) -> None:
    """Writes generated dialogues of the nano model's kind, unless the file is there.

    Args:
      path: the file, in LoCoMo's format.
      seed: of the dialogues.
      train: dialogues to learn from.
      test: dialogues to measure on.
      again: write them even so: a start that came to nothing may have left others.
      **sizes: arguments of `data.synthetic.generate` other than those of `NANO_DIALOGUES`.
    """
    if path.exists() and not again:
        return
    write_synthetic(path, seed, train=train, validation=0, test=test, **NANO_DIALOGUES | sizes)


def run_study(
    runs: Sequence[tuple[str, ExperimentConfig]], measure: Callable[["Experiment"], dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Does what is left of a list of runs and of their measuring, one after another.

    Args:
      runs: a name and a configuration with `resume` for each; runs of one name differ in the seed.
      measure: turns a finished experiment into what `measured.json` keeps.

    Returns:
      By name, for each run what `measure` returned, and "steps": records of `metrics.jsonl` by
      agent.

    Raises:
      UserError: a folder was begun with other settings.
      Preempted: a run was asked to stop; its state is saved.
    """
    found: dict[str, list] = {}
    for number, (name, options) in enumerate(runs, 1):
        title = f"{number} of {len(runs)} runs: {name}, seed {options.seed}"
        found.setdefault(name, []).append(_run_to_its_end(title, options, measure))
    return found


def write_results(
    folder: Path,
    found: dict[str, Any],
    tables: Iterable[Table],
    pictures: Mapping[str, bytes],
    *below: str,
) -> dict[str, Any]:
    """Prints the tables; writes `results.md`, the pictures and, last, `results.json`.

    Args:
      folder: of the study.
      found: what `results.json` holds, and what is returned.
      tables: in their order.
      pictures: PNGs by the names of their files.
      *below: further parts of `results.md`.
    """
    tables = list(tables)
    for one in tables:
        table(one.title, one.columns, one.rows)
    parts = [*(one.markdown for one in tables), *below]
    write_text_atomic(
        folder / "results.md", "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
    )
    for name, picture in pictures.items():
        write_bytes_atomic(folder / name, picture)
    write_json_atomic(folder / "results.json", found)
    print(f"Everything is in {folder}")
    return found


def _run_to_its_end(title, options, measure):
    from memr1_jax.training.experiment import Experiment

    folder = Path(options.output)
    measured = folder / "measured.json"
    if not _finished(folder, options):
        print(f"== {title}", flush=True)
        experiment = Experiment(options)
        measured.unlink(missing_ok=True)  # only now: what is refused loses nothing
        try:
            experiment.run()
        except Preempted as stopped:
            raise Preempted("Stopped, as asked. The same command resumes here.") from stopped
        write_json_atomic(measured, measure(experiment))
    records = read_metrics(folder / "metrics.jsonl")
    steps = {agent: records_of(records, agent, "train") for agent in AGENTS}
    return {
        "steps": steps,
        **read_json_object(measured, f"Remove {measured}, and it is measured again."),
    }


def held_out(experiment: "Experiment") -> "HeldOutDialogues":
    """Returns what measures agents on the dialogues that the experiment does not learn from."""
    from memr1_jax.studies.measure import HeldOutDialogues

    options = experiment.options
    dialogues = split(load_conversations(options.data_path), options.eval_split)
    return HeldOutDialogues(options, experiment.pair, experiment.models, dialogues)


def _finished(folder: Path, options: ExperimentConfig) -> bool:
    """Tells whether the folder holds all that the options ask for, made with just these."""
    flags = flags_text(options)
    if not (folder / "flags.txt").exists() or (folder / "flags.txt").read_text() != flags:
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
