"""What reinforcement learning teaches both agents: GRPO beside PPO, several seeds each.

From one start, the nano model, either algorithm trains the Answer Agent on banks as they should be,
then the Memory Manager through that Answer Agent, frozen. Dialogues, questions, samples a question
and steps are the same for both, so that what differs is where advantages come from: the group, or a
critic. Before and after, both agents are measured on held-out dialogues.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from memr1_jax.data.locomo import load_conversations, split
from memr1_jax.data.synthetic import write_synthetic
from memr1_jax.errors import UserError
from memr1_jax.training.config import ExperimentConfig, PPOConfig, option
from memr1_jax.training.files import prepare_run_folder, write_json_atomic
from memr1_jax.training.learning_report import write_report
from memr1_jax.training.metrics_log import read_metrics
from memr1_jax.training.nano import NANO_DIALOGUES, NANO_SIZES

ALGORITHMS = ("grpo", "ppo")
AGENTS = ("answer", "manager")


@dataclasses.dataclass(frozen=True)
class LearningConfig:
    """Options of the comparison; what is not here is the same for all its runs."""

    output: str = option("runs/learning", "Folder; the same command goes on with it.")
    model: str = option("nano", "Where both agents start; a model of the nano model's sizes.")
    algorithms: str = option("grpo,ppo", "Which algorithms, separated by commas.")
    seeds: int = option(3, "Runs of each algorithm, which differ in sampling and order of data.")
    answer_steps: int = option(60, "Updates of the Answer Agent.")
    manager_steps: int = option(40, "Updates of the Memory Manager.")
    batch: int = option(16, "Prompts a step, of either algorithm.")
    group: int = option(8, "Responses sampled to a prompt, of either algorithm.")
    grpo_learning_rate: float = option(3e-4, "Learning rate of GRPO.")
    ppo_learning_rate: float = option(3e-4, "Learning rate of PPO's policy.")
    critic_learning_rate: float = option(1e-3, "Learning rate of PPO's critic.")
    dialogues: int = option(150, "Generated dialogues to learn from.")
    test_dialogues: int = option(40, "Generated dialogues to measure on.")
    seed: int = option(7, "Seed of the dialogues, and the first seed of the runs.")


def learn(options: LearningConfig) -> dict[str, Any]:
    """Runs both algorithms with every seed, measures and reports.

    What an earlier call has finished in the folder is not repeated. The folder then holds
    `dialogues.json`, a run folder `<algorithm>_<seed>/` each with its `measured.json`, and
    `results.json`, `results.md` and `reward.png`.

    Returns:
      What `results.json` holds.

    Raises:
      UserError: an option makes no sense, or the folder was begun with other settings.
      Preempted: a run was asked to stop; its state is saved.
    """
    chosen = options.algorithms.split(",")
    if not chosen or set(chosen) - set(ALGORITHMS):
        raise UserError(f"--algorithms={options.algorithms} names others than {ALGORITHMS}.")
    for name in ("seeds", "answer_steps", "manager_steps", "dialogues", "test_dialogues"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name}={getattr(options, name)} must be at least 1.")
    folder = prepare_run_folder(options.output, resume=True)
    _share_compiled(folder / "compiled")
    if not (folder / "dialogues.json").exists():
        counts = {"train": options.dialogues, "validation": 0, "test": options.test_dialogues}
        write_synthetic(folder / "dialogues.json", options.seed, **counts, **NANO_DIALOGUES)
    runs = {
        algorithm: [
            run_to_its_end(
                f"{algorithm.upper()}, seed {seed}", run_options(options, folder, algorithm, seed)
            )
            for seed in range(options.seed, options.seed + options.seeds)
        ]
        for algorithm in chosen
    }
    return write_report(folder, dataclasses.asdict(options), runs)


def run_options(
    options: LearningConfig, folder: Path, algorithm: str, seed: int
) -> ExperimentConfig:
    """One run of GRPO or PPO from the start: the same but for what each has alone.

    Without a KL penalty, which would hold a policy near a start that is meant to be left.
    """
    kinds = {"grpo": ExperimentConfig, "ppo": PPOConfig}
    rates = {"grpo": options.grpo_learning_rate, "ppo": options.ppo_learning_rate}
    return kinds[algorithm](
        **NANO_SIZES,
        model=options.model,
        output=str(folder / f"{algorithm}_{seed}"),
        data="locomo",  # the format of the file
        data_path=str(folder / "dialogues.json"),
        eval_split="test",
        first="answer",
        training_banks="gold",
        window=0,
        answer_steps=options.answer_steps,
        manager_steps=options.manager_steps,
        batch=options.batch,
        group=options.group,
        learning_rate=rates[algorithm],
        critic_learning_rate=options.critic_learning_rate,
        weight_decay=0.0,
        kl_weight=0.0,
        evaluate=False,
        resume=True,  # a folder that holds nothing yet is begun
        checkpoint_every=50,
        keep=1,
        samples_every=20,
        eval_batch=32,
        seed=seed,
    )


def run_to_its_end(title: str, options: ExperimentConfig) -> dict[str, Any]:
    """The steps' metrics by agent and what was measured, of a run that is gone on with if need be.

    Returns:
      "steps": records of `metrics.jsonl` by agent; "start" and "end": `measure.Measured` as
      dictionaries; the start's manager is judged by the trained Answer Agent, as the end's is.
    """
    from memr1_jax.training.experiment import Experiment

    folder = Path(options.output)
    measured = folder / "measured.json"
    if not _finished(folder, options):
        print(f"== {title}", flush=True)
        measured.unlink(missing_ok=True)
        experiment = Experiment(options)
        experiment.run()
        write_json_atomic(measured, _measure(experiment))
    records = read_metrics(folder / "metrics.jsonl")
    steps = {agent: [r for r in records if r["agent"] == agent] for agent in AGENTS}
    return {"steps": steps, **json.loads(measured.read_text(encoding="utf-8"))}


def _measure(experiment) -> dict[str, dict]:
    from memr1_jax.training.measure import Yardstick

    options, models = experiment.options, experiment.models
    conversations = load_conversations(options.data_path)
    yardstick = Yardstick(
        options, experiment.bench, models, split(conversations, options.eval_split)
    )
    start, trained = models.manager.params, experiment.params
    before = dataclasses.asdict(yardstick(start, start))
    before["manager"] = yardstick.manager(start, trained["answer"])
    return {
        "start": before,
        "end": dataclasses.asdict(yardstick(trained["manager"], trained["answer"])),
    }


def _finished(folder: Path, options: ExperimentConfig) -> bool:
    """Whether the folder holds all that the options ask for, made with just these options."""
    flags = "".join(f"--{name}={value}\n" for name, value in dataclasses.asdict(options).items())
    if not (folder / "flags.txt").exists() or (folder / "flags.txt").read_text() != flags:
        return False  # `Experiment` says what differs
    records = read_metrics(folder / "metrics.jsonl")
    wanted = {"answer": options.answer_steps, "manager": options.manager_steps}
    done = {record["agent"]: record["step"] for record in records}
    return done == wanted and (folder / "measured.json").exists()


def _share_compiled(folder: Path) -> None:
    """What one run compiles serves the next, unless the user has named another place for that."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
