"""The runs that the paper's ablations take on the nano model, and the table rows they fill.

A cell is a run that trains one agent from a start; it is run once with each seed, whatever number
of tables show it. Managers learn through, and Answer Agents begin as, the Answer Agent that another
cell has trained.

Two tables need more than a flag:

- **Distillation.** The nano model was taught to write the memories that it answers from, so that to
  forbid them would also leave its form. Both variants therefore start with the same short lesson
  (`--sft_steps`): demonstrations of the same questions with the same flaws as the nano model's last
  ones, with the memories for one and the answer alone for the other. Then both learn by the same
  RL. One difference remains: the one with memories was taught its form before; the rows after
  the lesson say how much that is.
- **Horizon.** Equal compute is an equal number of responses that the manager samples, and of
  updates. Each step takes as many turns of dialogue, `TURNS`, in every scheme: as single turns, or
  as TURNS / T episodes of T turns. Each turn is sampled `--horizon_group`
  times, by branches or by as many trajectories through it. Turns without a question count too.
  Reading by the frozen Answer Agent for the reward does not count; seconds a step show it.

Axis letters: T turns of an episode.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from memr1_jax.agents.episode_rollout import HORIZONS
from memr1_jax.agents.prompt_files import plain_prompt
from memr1_jax.errors import UserError
from memr1_jax.options import SEEDS, at_least, check, option, with_default
from memr1_jax.run.run_folder import OutputConfig
from memr1_jax.studies.nano import NANO_DIALOGUES, NANO_SIZES, NanoConfig
from memr1_jax.studies.runner import flags_of_file, nano_options
from memr1_jax.training.config import ExperimentConfig

TURNS = 32  # of dialogue in a step of the horizon table
LENGTHS = (8, 16, 32)  # turns that bring facts of a dialogue there
WINDOWS = (24, 50, 0)  # turns; 0: all
ALGORITHMS = {  # in the order of the table
    "sft": "SFT on right demonstrations",
    "best_of_n": "best of n",
    "ppo": "PPO",
    "grpo": "GRPO",
}
REWARDS = {
    "exact_match": "exact match",
    "token_f1": "token F1",
    "contains": "contains the gold answer",
    "judge": "judge",
}
SIGNALS_FILE = "nano_signals.flags"  # the whole of the manager's recipe
SIGNALS = {  # what each row of the table changes of it
    "the whole": {},
    "no price of growth": {"growth_weight": 0.0},
    "no question about what the bank holds": {"retention_questions": 0, "silent_turns": 0.0},
    "no silent turn": {"silent_turns": 0.0},
    "no later memories in the bank": {"bank_depth": 0},
    "operations sampled, not one of each": {"stratified": False},
    "no recall": {"reward": "exact_match"},
    "no exact match": {"reward": "recall"},
}
_PAPERS = {  # the reward of the paper and nothing else, under the same grammar
    "reward": "exact_match",
    "retention_questions": 0,
    "silent_turns": 0.0,
    "bank_depth": 0,
    "growth_weight": 0.0,
    "stratified": False,
}
_PER_SESSION = NANO_DIALOGUES["facts_per_session"]
_FACTS = NANO_DIALOGUES["num_sessions"] * _PER_SESSION  # turns that bring facts, elsewhere


@dataclasses.dataclass(frozen=True)
class AblationsConfig(OutputConfig):
    """Set the runs of the ablations; what is not here is the same for all of them."""

    output: str = with_default(OutputConfig, "output", "runs/ablations")
    model: str = option("nano", "Where all runs start; a model of the nano model's sizes.")
    tables: str = option(
        "agents,distillation,reward,algorithms,horizon,window",
        "Tables to fill, separated by commas.",
    )
    seeds: int = option(
        3, "Runs of each cell, which differ in sampling and order of data.", within=at_least(1)
    )
    answer_steps: int = option(30, "Updates of the Answer Agent.", within=at_least(1))
    manager_steps: int = option(
        20, "Updates of the Memory Manager, but see --horizon_steps.", within=at_least(1)
    )
    horizon_steps: int = option(
        12, "Its updates in the tables of horizons and windows.", within=at_least(1)
    )
    horizon_group: int = option(4, "Samples of a turn there.", within=at_least(1))
    final_questions: int = option(
        8, "Questions at the end of an episode there.", within=at_least(1)
    )
    sft_steps: int = option(
        80, "Updates of supervised fine-tuning, of either agent.", within=at_least(1)
    )
    sft_batch: int = option(32, "Demonstrations a step of it.", within=at_least(1))
    batch: int = option(16, "Prompts a step of RL.", within=at_least(1))
    group: int = option(8, "Responses sampled to a prompt.", within=at_least(1))
    learning_rate: float = option(3e-4, "Learning rate of all policies.", within=at_least(0))
    critic_learning_rate: float = option(1e-3, "Learning rate of PPO's critic.", within=at_least(0))
    judge_model: str = option(
        "",
        "Model that judges, with the tokenizer of --model; nano_judge for nano. Empty: the judge's"
        " row is not run.",
    )
    dialogues: int = option(
        150, f"Generated dialogues of {_FACTS} turns with facts to learn from.", within=at_least(1)
    )
    test_dialogues: int = option(
        24, "Generated dialogues of that length to measure on.", within=at_least(1)
    )
    seed: int = option(107, "Seed of the dialogues, and the first seed of the runs.", within=SEEDS)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Runs that train one agent with one setting.

    `settings` lack seed, folder, dialogues and the Answer Agent's model, which `experiment_of`
    adds. The dialogues have `facts` turns that bring facts. `answerer` has trained the Answer Agent
    at the start; without, it is the model of the settings.
    """

    name: str
    settings: ExperimentConfig
    facts: int = _FACTS
    answerer: "Cell | None" = None

    @property
    def steps(self) -> int:
        """Updates of the agent that is trained."""
        settings = self.settings
        return settings.manager_steps if settings.agent == "manager" else settings.answer_steps

    @property
    def varies(self) -> bool:
        """Tells whether another seed brings another result."""
        return self.steps > 0 or (self.answerer is not None and self.answerer.varies)

    @property
    def sampled(self) -> int:
        """Responses that the agent samples in training, of turns without any question too."""
        settings = self.settings
        if settings.algorithm == "sft":
            return 0
        turns = settings.horizon.episode_turns if settings.horizon.episodic else 1
        return self.steps * settings.batch * turns * settings.policy.group


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: what its first columns say, and its cell, None where it is not run."""

    labels: tuple[str, ...]
    cell: Cell | None


def plan(options: AblationsConfig) -> dict[str, tuple[Row, ...]]:
    """Returns the rows of the chosen tables by the tables' names.

    Raises:
      UserError: an option makes no sense.
    """
    chosen = options.tables.split(",")
    if unknown := [name for name in chosen if name not in TABLES]:
        raise UserError(f"--tables={options.tables}: there is no {unknown[0]!r} in {(*TABLES,)}.")
    check(options)
    return {name: tuple(rows(options)) for name, rows in TABLES.items() if name in chosen}


def cells_of(tables: Mapping[str, Iterable[Row]]) -> list[Cell]:
    """Lists the cells of tables, each once, those that others start from before these."""
    found: dict[Cell, None] = {}

    def add(cell: Cell | None):
        if cell is not None and cell not in found:
            add(cell.answerer)
            found[cell] = None

    for rows in tables.values():
        for row in rows:
            add(row.cell)
    return list(found)


def experiment_of(cell: Cell, folder: Path, seed: int) -> ExperimentConfig:
    """Configures one run of a cell, in the folder of the ablations."""
    answerer = ""
    if cell.answerer is not None:
        start = experiment_of(cell.answerer, folder, seed)
        answerer = f"{start.output}/export/answer"
    return dataclasses.replace(
        cell.settings,
        output=str(folder / f"{cell.name}_{seed}"),
        data_path=str(folder / dialogues_file(cell.facts)),
        answer_model=answerer,
        seed=seed,
    )


def dialogues_file(facts: int) -> str:
    """Names the file with dialogues of `facts` turns that bring facts."""
    return f"dialogues_{facts}.json"


def dialogue_counts(options: AblationsConfig, facts: int) -> dict[str, int]:
    """Returns length and number of dialogues of `facts` turns: as many turns of every length."""
    return {
        "num_sessions": facts // _PER_SESSION,
        "train": max(1, round(options.dialogues * _FACTS / facts)),
        "test": max(1, round(options.test_dialogues * _FACTS / facts)),
    }


def _agents(options):
    return [
        Row(("none",), _start(options)),
        Row(("manager only",), _manager(options, "manager_alone")),
        Row(("answer agent only",), _trained_answerer(options)),
        Row(("both",), _algorithm(options, "grpo")),
    ]


def _distillation(options):
    rows = []
    selecting = NANO_SIZES["answer_prompt"]
    for text, shown, ending in (
        ("memories, then the answer", selecting, ""),
        ("the answer alone", plain_prompt(selecting), "_base"),
    ):
        prompt = {"answer_prompt": shown}
        flaws = {"verbose": NanoConfig().verbose}
        name = f"lesson{ending}"
        lesson = _answer(options, name, **_of("sft", options, "answer_steps"), **flaws, **prompt)
        trained = _answer(options, f"answer_after_{name}", answerer=lesson, **prompt)
        rows += [Row((text, "the lesson"), lesson), Row((text, "the lesson and RL"), trained)]
    return rows


def _reward(options):
    rows = [Row(("none (no RL)",), _start(options))]
    for reward, text in REWARDS.items():
        changes = {"reward": reward}
        cell = None
        if reward == "exact_match":
            cell = _trained_answerer(options)
        elif reward != "judge" or options.judge_model:
            if reward == "judge":
                changes["judge_model"] = options.judge_model
            cell = _answer(options, f"answer_{reward}", **changes)
        rows.append(Row((text,), cell))
    return rows


def _algorithms(options):
    rows = [Row((text,), _algorithm(options, name)) for name, text in ALGORITHMS.items()]
    return [Row(("none",), _start(options)), *rows]


def _horizon(options):
    rows = []
    for facts in LENGTHS:
        rows.append(Row((str(facts), "none"), _long(options, facts, "start", steps=0)))
        rows += [
            Row((str(facts), horizon.replace("_", " ")), _long(options, facts, horizon))
            for horizon in HORIZONS
        ]
    return rows


def _window(options):
    longest = max(LENGTHS)
    rows = [Row(("no RL of the manager",), _long(options, longest, "start", steps=0))]
    for window in WINDOWS:
        name = f"window_{window}" if window else "one_step"
        text = f"{window} turns" if window else "all turns"
        rows.append(Row((text,), _long(options, longest, name, window=window)))
    return rows


def _signals(options):
    given = flags_of_file(SIGNALS_FILE)
    recipe = {flag: given[flag] for flag in (*_PAPERS, "constrained")}
    answerer = _trained_answerer(options)
    variants = {"exact match alone": _PAPERS, **SIGNALS}
    start = _manager(options, "signals_start", answerer=answerer, constrained=True, manager_steps=0)
    cells = [
        _manager(options, f"signals_{number}", answerer=answerer, **recipe | changes)
        for number, changes in enumerate(variants.values())
    ]
    rows = [Row((text,), cell) for text, cell in zip(variants, cells, strict=True)]
    return [Row(("none",), _start(options)), Row(("no RL of the manager",), start), *rows]


TABLES: dict[str, Callable[[AblationsConfig], list[Row]]] = {
    "agents": _agents,
    "distillation": _distillation,
    "reward": _reward,
    "algorithms": _algorithms,
    "horizon": _horizon,
    "window": _window,
    "signals": _signals,
}


def _start(options):
    """Returns both agents as they start: no step of either."""
    return _answer(options, "start", answer_steps=0)


def _trained_answerer(options):
    """Returns the Answer Agent that managers learn through."""
    return _answer(options, "answer_grpo")


def _algorithm(options, algorithm):
    """Returns a manager through an Answer Agent, both trained by one algorithm."""
    answerer = _trained_answerer(options)
    if algorithm != "grpo":
        changes = _of(algorithm, options, "answer_steps")
        answerer = _answer(options, f"answer_{algorithm}", **changes)
    changes = _of(algorithm, options, "manager_steps")
    return _manager(options, f"manager_{algorithm}", answerer=answerer, **changes)


def _of(algorithm, options, steps) -> dict[str, Any]:
    """Returns the settings that an algorithm changes from GRPO's."""
    if algorithm != "sft":
        return {"algorithm": algorithm}
    return {"algorithm": "sft", "batch": options.sft_batch, steps: options.sft_steps}


def _long(options, facts, name, steps=None, window=0):
    """Returns a manager on dialogues of `facts` turns, by the horizon in its name, if any."""
    changes = {
        "batch": TURNS,
        "group": options.horizon_group,
        "manager_steps": options.horizon_steps if steps is None else steps,
        "bank_capacity": max(NANO_SIZES["bank_capacity"], facts),  # one operation a turn
        "window": window,
    }
    if name in HORIZONS and name != "one_step":
        changes |= {
            "horizon": name,
            "batch": TURNS // facts,
            "episode_turns": facts,
            "final_questions": options.final_questions,
        }
    answerer = _trained_answerer(options)
    return _manager(options, f"{name}_{facts}", facts=facts, answerer=answerer, **changes)


def _answer(options, name, *, answerer=None, **changes):
    return Cell(name, _settings(options, agent="answer", **changes), answerer=answerer)


def _manager(options, name, *, facts=_FACTS, answerer=None, **changes):
    return Cell(name, _settings(options, agent="manager", **changes), facts, answerer)


def _settings(options, **changes):
    common = {
        "model": options.model,
        "answer_steps": options.answer_steps,
        "manager_steps": options.manager_steps,
        "batch": options.batch,
        "group": options.group,
        "learning_rate": options.learning_rate,
        "critic_learning_rate": options.critic_learning_rate,
    }
    return nano_options(**common | changes)
