"""Studies what reinforcement learning teaches both agents: GRPO and PPO, several seeds each.

From one start, the nano model, either algorithm trains the Answer Agent on banks as they should be,
then the Memory Manager through that Answer Agent, frozen. Dialogues, questions, samples a question
and steps are the same for both, so that what differs is where advantages come from: the group, or a
critic. Before and after, both agents are measured on held-out dialogues.

Axis letters: S seeds, T steps.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.evals.bank_health import COMPLAINTS
from memr1_jax.options import SEEDS, at_least, check, option, with_default
from memr1_jax.run.plots import moving_mean, new_figure, png
from memr1_jax.run.run_folder import OutputConfig
from memr1_jax.run.seeds import interval_text
from memr1_jax.studies.runner import (
    Table,
    dialogues_of_flags,
    flags_of_file,
    held_out,
    nano_options,
    open_folder,
    run_study,
    write_dialogues,
    write_results,
)
from memr1_jax.training.config import ExperimentConfig

ALGORITHMS = ("grpo", "ppo")
_AGENTS = {"answer": "Answer Agent", "manager": "Memory Manager"}
_ABILITIES = {
    "answer": "Answer Agent, exact match",
    "manager": "Memory Manager, exact match through the trained Answer Agent",
    "operations": "manager's operations equal to the gold ones (never rewarded)",
    "dialogue": "both, whole dialogues, banks from empty: exact match",
}
_WHEN = ("start", "after RL", "gain")
# Options that another call with the same folder may change: more runs, or a longer manager, which
# learns last. The Answer Agent's steps are not among them, as the manager has learned from it.
_FREE = ("algorithms", "seeds", "manager_steps")


@dataclasses.dataclass(frozen=True)
class LearningConfig(OutputConfig):
    """Set the runs that are compared; what is not here is the same for all of them."""

    output: str = with_default(OutputConfig, "output", "runs/learning")
    model: str = option("nano", "Where both agents start; a model of the nano model's sizes.")
    algorithms: str = option("grpo,ppo", "Algorithms to compare, separated by commas.")
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
    flags: str = option(
        "",
        "Flag file whose flags every run has in place of the study's, such as"
        " experiments/flags/nano_signals.flags, and that says how dialogues are made; folder,"
        " model, numbers of dialogues, algorithm and seed stay.",
    )
    one_edit: bool = option(
        True,
        "Measure the manager by single edits of right banks as well, which takes longest.",
    )
    seed: int = option(107, "Seed of the dialogues, and the first seed of the runs.", within=SEEDS)


def learn(options: LearningConfig) -> dict[str, Any]:
    """Runs both algorithms with every seed, measures and reports.

    Runs that an earlier call finished in the folder are not repeated; with more `manager_steps`
    they continue and are measured again. The folder then holds `dialogues.json`, a run folder
    `<algorithm>_<seed>/` each with its `measured.json`, and `results.json`, `results.md` and
    `reward.png`.

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
    opened = open_folder(options, "learning", _FREE)
    folder = opened.path
    counts = {"train": options.dialogues, "test": options.test_dialogues}
    sizes = dialogues_of_flags(flags_of_file(options.flags))
    again = not opened.begun
    write_dialogues(folder / "dialogues.json", options.seed, again=again, **counts, **sizes)
    wanted = [
        (algorithm, run_options(options, folder, algorithm, seed))
        for algorithm in chosen
        for seed in range(options.seed, options.seed + options.seeds)
    ]
    measure = functools.partial(_measure, one_edit=options.one_edit)
    return write_report(folder, dataclasses.asdict(options), run_study(wanted, measure))


def run_options(
    options: LearningConfig, folder: Path, algorithm: str, seed: int
) -> ExperimentConfig:
    """Returns one run of GRPO or PPO from the start: the same but for what each has alone."""
    rates = {"grpo": options.grpo_learning_rate, "ppo": options.ppo_learning_rate}
    common = {
        "answer_steps": options.answer_steps,
        "manager_steps": options.manager_steps,
        "batch": options.batch,
        "group": options.group,
        "learning_rate": rates[algorithm],
        "critic_learning_rate": options.critic_learning_rate,
    }
    fixed = {
        "algorithm": algorithm,
        "model": options.model,
        "output": str(folder / f"{algorithm}_{seed}"),
        "data": "locomo",  # the format of the study's file
        "data_path": str(folder / "dialogues.json"),
        "seed": seed,
    }
    return nano_options(**common | flags_of_file(options.flags) | fixed)


def _measure(experiment, *, one_edit: bool) -> dict[str, dict]:
    """Returns `measure.Measured` as dictionaries, at the "start" and at the "end".

    The start's manager is judged by the trained Answer Agent, as the end's is.
    """
    dialogues = held_out(experiment)
    models, trained = experiment.models, experiment.params
    reader = trained["answer"] if one_edit else None
    pairs = {
        "start": (models.manager.params, models.answerer.params),
        "end": (trained["manager"], trained["answer"]),
    }
    return {
        when: dataclasses.asdict(dialogues.measure(*pair, reader)) for when, pair in pairs.items()
    }


def write_report(
    folder: Path, options: Mapping[str, Any], runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Prints the tables; writes `results.md`, `reward.png` and, last, `results.json`.

    Args:
      folder: where to.
      options: of the study, to be kept with its results.
      runs: by algorithm, from `runner.run_study`.

    Returns:
      What `results.json` holds: options, and by algorithm the rewards `[S, T]` of each agent, what
      was measured at the start and at the end of each seed, and the seconds a step.
    """
    results = {
        name: {
            agent: {
                "rewards": _column(seeds, agent, "reward").tolist(),
                "seconds_per_step": float(np.median(_column(seeds, agent, "seconds"))),
            }
            for agent in _AGENTS
            if all(run["steps"][agent] for run in seeds)  # a flag file may leave one out
        }
        | {when: [run[when] for run in seeds] for when in ("start", "end")}
        for name, seeds in runs.items()
    }
    tables = [part(results) for part in (_abilities, _rewards, _events, _health)]
    found = {"options": dict(options), "algorithms": results}
    return write_results(folder, found, tables, {"reward.png": draw(results)})


def fifths(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages rewards `[S]` over the first and over the last fifth of the steps of `[S, T]`."""
    few = max(1, rewards.shape[1] // 5)
    return rewards[:, :few].mean(axis=1), rewards[:, -few:].mean(axis=1)


def draw(results: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Draws the curves as a PNG, a panel an agent: seeds' mean of moving means, and range."""
    agents = _that_learned(results)
    figure, panels = new_figure(len(agents), (5.5 * len(agents), 4.0))
    for panel, (agent, title) in zip(panels, agents.items(), strict=True):
        for name, found in results.items():
            values = np.array(found[agent]["rewards"])
            window = max(1, values.shape[1] // 10)
            smooth = np.stack([moving_mean(run, window) for run in values])
            place = np.arange(1, values.shape[1] + 1)
            (line,) = panel.plot(place, smooth.mean(axis=0), linewidth=2, label=name.upper())
            lowest, highest = smooth.min(axis=0), smooth.max(axis=0)
            panel.fill_between(
                place, lowest, highest, color=line.get_color(), alpha=0.2, linewidth=0
            )
        panel.set_title(f"{title}: means of {window} steps, bands: all seeds")
        panel.set_xlabel("training step")
        panel.set_ylabel("mean reward of a response")
        panel.set_ylim(bottom=0.0)
        panel.legend(frameon=False)
    return png(figure)


def _abilities(results):
    """Makes the table of what was measured on held-out dialogues, in percent."""
    one = next(iter(results.values()))["start"]
    title = (
        f"Held-out dialogues ({one[0]['questions']} questions, {one[0]['turns']} turns with"
        f" facts), percent: mean and 95 percent interval over {len(one)} seeds"
    )
    columns = ["", *(f"{name.upper()}, {what}" for name in results for what in _WHEN)]
    rows = [
        [text, *(cell for found in results.values() for cell in _before_after(found, key))]
        for key, text in _ABILITIES.items()
        if one[0][key] is not None
    ]
    return Table(title, columns, rows)


def _before_after(found, key):
    start, end = (100 * np.array([run[key] for run in found[when]]) for when in ("start", "end"))
    return [interval_text(values, ".1f") for values in (start, end, end - start)]


def _rewards(results):
    columns = ("agent", "algorithm", "first fifth", "last fifth", "gain", "seconds a step")
    rows = []
    for agent, title in _that_learned(results).items():
        for name, found in results.items():
            first, last = fifths(np.array(found[agent]["rewards"]))
            cells = [interval_text(values, ".3f") for values in (first, last, last - first)]
            rows.append([title, name.upper(), *cells, f"{found[agent]['seconds_per_step']:.2f}"])
    return Table("Reward in training", columns, rows)


def _that_learned(results) -> dict[str, str]:
    """Returns the titles of the agents that the runs trained."""
    one = next(iter(results.values()))
    return {agent: title for agent, title in _AGENTS.items() if agent in one}


def _events(results):
    kinds = next(iter(results.values()))["start"][0]["by_event"]
    return _means(
        "Operations equal to the gold ones, percent by kind",
        "gold operation",
        {kind: kind for kind in kinds},
        lambda run, kind: 100 * run["by_event"][kind],
        results,
    )


def _health(results):
    facts = next(iter(results.values()))["start"][0]["health"]["facts"]
    title = f"Banks at the end, where {facts} facts hold: counts, means over seeds"
    return _means(title, "whole dialogues", COMPLAINTS, lambda r, key: r["health"][key], results)


def _means(title, heading, names, value, results):
    """Returns a table of `value(run, name)`, means over seeds, at the start and after learning."""
    columns = [heading, "start", *(f"after {name.upper()}" for name in results)]
    starts = next(iter(results.values()))["start"]
    measured = (starts, *(found["end"] for found in results.values()))
    rows = [
        [text, *(f"{np.mean([value(run, name) for run in runs]):.1f}" for runs in measured)]
        for name, text in names.items()
    ]
    return Table(title, columns, rows)


def _column(seeds, agent, name) -> np.ndarray:
    """Returns one metric `[S, T]` of an agent's steps."""
    return np.array([[step[name] for step in run["steps"][agent]] for run in seeds])
