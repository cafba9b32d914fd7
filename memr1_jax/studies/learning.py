"""What reinforcement learning teaches both agents: GRPO beside PPO, several seeds each.

From one start, the nano model, either algorithm trains the Answer Agent on banks as they should be,
then the Memory Manager through that Answer Agent, frozen. Dialogues, questions, samples a question
and steps are the same for both, so that what differs is where advantages come from: the group, or a
critic. Before and after, both agents are measured on held-out dialogues.
"""

import dataclasses
from pathlib import Path
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.options import SEEDS, at_least, check, option, with_default
from memr1_jax.studies.comparison import (
    held_out,
    nano_options,
    open_folder,
    run_to_its_end,
    write_dialogues,
)
from memr1_jax.studies.learning_report import write_report
from memr1_jax.training.config import ExperimentConfig, OutputConfig

ALGORITHMS = ("grpo", "ppo")


@dataclasses.dataclass(frozen=True)
class LearningConfig(OutputConfig):
    """Set the runs that are compared; what is not here is the same for all of them."""

    output: str = with_default(OutputConfig, "output", "runs/learning")
    model: str = option("nano", "Where both agents start; a model of the nano model's sizes.")
    algorithms: str = option("grpo,ppo", "Which algorithms, separated by commas.")
    seeds: int = option(
        3, "Runs of each algorithm, which differ in sampling and order of data.", within=at_least(1)
    )
    answer_steps: int = option(60, "Updates of the Answer Agent.", within=at_least(1))
    manager_steps: int = option(40, "Updates of the Memory Manager.", within=at_least(1))
    batch: int = option(16, "Prompts a step, of either algorithm.", within=at_least(1))
    group: int = option(
        8, "Responses sampled to a prompt, of either algorithm.", within=at_least(1)
    )
    grpo_learning_rate: float = option(3e-4, "Learning rate of GRPO.", within=at_least(0))
    ppo_learning_rate: float = option(3e-4, "Learning rate of PPO's policy.", within=at_least(0))
    critic_learning_rate: float = option(1e-3, "Learning rate of PPO's critic.", within=at_least(0))
    dialogues: int = option(150, "Generated dialogues to learn from.", within=at_least(1))
    test_dialogues: int = option(40, "Generated dialogues to measure on.", within=at_least(1))
    seed: int = option(107, "Seed of the dialogues, and the first seed of the runs.", within=SEEDS)


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
    check(options)
    chosen = options.algorithms.split(",")
    if not chosen or set(chosen) - set(ALGORITHMS):
        raise UserError(f"--algorithms={options.algorithms} names others than {ALGORITHMS}.")
    folder = open_folder(options.output)
    counts = {"train": options.dialogues, "test": options.test_dialogues}
    write_dialogues(folder / "dialogues.json", options.seed, **counts)
    runs = {
        algorithm: [
            run_to_its_end(
                f"{algorithm.upper()}, seed {seed}",
                run_options(options, folder, algorithm, seed),
                _measure,
            )
            for seed in range(options.seed, options.seed + options.seeds)
        ]
        for algorithm in chosen
    }
    return write_report(folder, dataclasses.asdict(options), runs)


def run_options(
    options: LearningConfig, folder: Path, algorithm: str, seed: int
) -> ExperimentConfig:
    """One run of GRPO or PPO from the start: the same but for what each has alone."""
    rates = {"grpo": options.grpo_learning_rate, "ppo": options.ppo_learning_rate}
    return nano_options(
        algorithm=algorithm,
        model=options.model,
        output=str(folder / f"{algorithm}_{seed}"),
        data_path=str(folder / "dialogues.json"),
        answer_steps=options.answer_steps,
        manager_steps=options.manager_steps,
        batch=options.batch,
        group=options.group,
        learning_rate=rates[algorithm],
        critic_learning_rate=options.critic_learning_rate,
        seed=seed,
    )


def _measure(experiment) -> dict[str, dict]:
    """`measure.Measured` as dictionaries, at the "start" and at the "end".

    The start's manager is judged by the trained Answer Agent, as the end's is.
    """
    yardstick = held_out(experiment)
    start, trained = experiment.models.manager.params, experiment.params
    before = dataclasses.asdict(yardstick(start, start))
    before["manager"] = yardstick.manager(start, trained["answer"])
    return {
        "start": before,
        "end": dataclasses.asdict(yardstick(trained["manager"], trained["answer"])),
    }
