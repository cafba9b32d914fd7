"""The options of each command that trains or evaluates: frozen dataclasses that join groups.

Each group is a heading of `--help`. Here are those that training alone reads; the others are
declared where they are read.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any, Self

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.agent_folder import with_model_settings
from memr1_jax.agents.episode_rollout import HorizonOptions
from memr1_jax.agents.extractor import ExtractorOptions
from memr1_jax.agents.judge import JudgeConfig
from memr1_jax.agents.reward import RewardOptions
from memr1_jax.data.dialogues import DataConfig
from memr1_jax.data.pressure import PressureOptions
from memr1_jax.errors import UserError
from memr1_jax.evals.evaluator import EvalConfig
from memr1_jax.models.lora import LoRAConfig
from memr1_jax.options import (
    Record,
    above,
    at_least,
    between,
    check,
    flag_values,
    option,
    with_default,
    with_options,
)
from memr1_jax.parallel.mesh import ParallelConfig
from memr1_jax.rl.imitation import ImitationOptions
from memr1_jax.rl.ppo import PPOOptions
from memr1_jax.rl.recipes import RECIPES, with_recipe
from memr1_jax.rl.update import OPTIMIZERS, GRPOOptions
from memr1_jax.run.run_folder import OutputConfig

ALGORITHMS = ("grpo", "ppo", "sft", "best_of_n")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Set which agent learns, how, for how long and how fast."""

    algorithm: str = option("grpo", "How the agents learn.", ALGORITHMS)
    agent: str = option(
        "both",
        "Which agent learns: the Memory Manager, the Answer Agent, both of them, or the fact"
        " extractor, rewarded by what the other two make of its facts.",
        ("manager", "answer", "both", "extractor"),
    )
    first: str = option(
        "manager",
        "With both agents: which one learns first; the other is frozen and learns afterwards.",
        ("manager", "answer"),
    )
    training_banks: str = option(
        "",
        "What fills the banks that the Answer Agent learns on: the manager, every noted fact, or"
        " the gold operations of generated dialogues. Empty: as --bank_builder.",
        ("", "manager", "add_all", "gold"),
    )
    manager_steps: int = option(100, "Updates of the Memory Manager.", within=at_least(0))
    answer_steps: int = option(100, "Updates of the Answer Agent.", within=at_least(0))
    extractor_steps: int = option(100, "Updates of the fact extractor.", within=at_least(0))
    batch: int = option(128, "Prompts in a batch.", within=at_least(1))
    rollout_weights: str = option(
        "same",
        "Weights that samples are drawn with: the same, or int8, rounded to 8 bits a channel, which"
        " needs --sampler_cap. Frozen agents and evaluations keep theirs.",
        ("same", "int8"),
    )
    optimizer: str = option("adamw", "Optimiser of policy and critic.", tuple(OPTIMIZERS))
    learning_rate: float = option(1e-6, "Peak learning rate.", within=at_least(0))
    warmup_ratio: float = option(
        0.0,
        "Share of each agent's optimiser steps over which its learning rate climbs.",
        within=between(0, 1),
    )
    warmup_steps: int = option(
        0,
        "The same as a number of steps, one for both agents; 0: --warmup_ratio.",
        within=at_least(0),
    )
    weight_decay: float = option(0.01, "Weight decay.", within=at_least(0))
    gradient_clip: float = option(
        1.0, "Global norm that gradients are clipped to.", within=above(0)
    )
    max_skipped: int = option(
        3,
        "Steps in a row that may be skipped, as their gradient is not finite; the last of them ends"
        " the run.",
        within=at_least(1),
    )
    critic_learning_rate: float = option(
        1e-5, "PPO: peak learning rate of the critic.", within=at_least(0)
    )
    critic_warmup_ratio: float = option(
        0.0,
        "PPO: share of the critic's steps over which that rate climbs.",
        within=between(0, 1),
    )
    critic_warmup_steps: int = option(
        0, "PPO: the same as a number of steps; 0: --critic_warmup_ratio.", within=at_least(0)
    )
    recipe: str = option(
        "",
        "GRPO: sets all parts of a published method, and prints them. Flags that you"
        " give, in flag files too, win.",
        ("", *RECIPES),
    )


@dataclasses.dataclass(frozen=True)
class DemonstrationConfig:
    """Spoil the demonstrations of supervised fine-tuning on purpose."""

    corrupt: float = option(
        0.0,
        "Probability that a demonstrated memory operation is a wrong one.",
        within=between(0, 1),
    )
    verbose: float = option(
        0.0,
        "Probability that a demonstrated answer is a whole memory, which is too long.",
        within=between(0, 1),
    )


@dataclasses.dataclass(frozen=True)
class RunConfig(OutputConfig):
    """Set what a run keeps, and where it resumes."""

    resume: bool = option(False, "Resume from the newest checkpoint in the run folder.")
    checkpoint_every: int = option(
        10, "Steps between checkpoints; the last is always saved.", within=at_least(1)
    )
    keep: int = option(2, "Newest checkpoints kept; the best is kept as well.", within=at_least(1))
    samples_every: int = option(
        1, "Steps between sampled rollouts written for reading.", within=at_least(1)
    )
    track: str = option(
        "tensorboard",
        "Where metrics, samples and the page of the run are copied to: tensorboard, wandb or"
        " mlflow, or several with commas; empty: nowhere.",
        formerly="tracker",
    )
    evaluate: bool = option(True, "Evaluate both agents before and after.")
    select: str = option(
        "last",
        "Checkpoint that is exported: the last, that of the best reward in training, or that of"
        " the best greedy reward on the validation split, the start included.",
        ("last", "best", "validation"),
    )
    validation_rows: int = option(
        64,
        "Prompts that --select=validation is measured on, evenly spread; 0: all.",
        within=at_least(0),
    )
    validation_folds: int = option(
        0,
        "Parts of the training questions; one is not learned from, but validated on together with"
        " the validation split; 0: none is held out.",
        within=between(0, 100),
    )
    validation_fold: int = option(
        0, "The part that is held out, counted from 0.", within=between(0, 99)
    )
    validation_generated: int = option(
        0, "Generated dialogues that are validated on as well.", within=between(0, 100_000)
    )
    patience: int = option(
        0,
        "Validations in a row without a better reward after which an agent stops learning; 0: it"
        " takes all of its steps.",
        within=at_least(0),
    )
    export: bool = option(True, "Export the trained agents as Hugging Face folders.")
    export_dtype: str = option("float32", "Number format of the export.", ("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class AlgorithmOptions(GRPOOptions, PPOOptions, ImitationOptions):
    """The options of all updates; each update reads its own."""


@dataclasses.dataclass(frozen=True)
class ExperimentConfig(
    RunConfig,  # options come in the order from the last base to the first
    ParallelConfig,
    DemonstrationConfig,
    JudgeConfig,
    EvalConfig,
    OptimizerConfig,
    LoRAConfig,
    AgentConfig,
    PressureOptions,
    DataConfig,
):
    """All options of an experiment; as they stand, of GRPO."""

    extraction: ExtractorOptions = ExtractorOptions()
    policy: AlgorithmOptions = AlgorithmOptions()
    reward: RewardOptions = RewardOptions()
    horizon: HorizonOptions = HorizonOptions()

    @classmethod
    def from_flags(cls, file: str | os.PathLike) -> Self:
        """Reads a flag file, by its path or by the name of one that comes with the package.

        Raises:
          UserError: there is no such file, or it holds what is no flag.
        """
        from memr1_jax.flags import read_flags

        return settled(*read_flags(cls, [f"--flagfile={os.fspath(file)}"]))

    @classmethod
    def quickstart(cls) -> Self:
        """Returns the options of `quickstart.flags`: both agents of the nano model, in minutes."""
        return cls.from_flags("quickstart.flags")

    @classmethod
    def paper(cls, model: str = "llama-3.1-8b", algorithm: str = "grpo") -> Self:
        """Returns the paper's options for a model and an algorithm.

        Args:
          model: "llama-3.1-8b", "qwen-2.5-3b", "qwen-2.5-7b", "qwen-2.5-14b", "qwen3-4b",
            "gemma-3-1b" or "gemma-3-4b".
          algorithm: "grpo"; of the first four also "ppo", of some "sft", "sft_best_of_n"
            and "grpo_dense".

        Raises:
          UserError: no flag file of the package is of these two.
        """
        from memr1_jax.flag_files import paper_file

        return cls.from_flags(paper_file(model, algorithm))

    def replace(self, **values: Any) -> Self:
        """Returns the options with other values, by flag: `config.replace(answer_steps=2)`.

        Raises:
          UserError: there is no such flag, or a value is out of its range.
        """
        if unknown := sorted(values.keys() - flag_values(self).keys()):
            raise UserError(
                f"There is no option {', '.join(unknown)}. An option has the name of its flag,"
                " without the dashes: `memr1 train --help` lists them."
            )
        changed = with_options(self, **values)
        check(changed)
        return changed


@dataclasses.dataclass(frozen=True)
class PPOConfig(ExperimentConfig):
    """The same options with PPO's defaults: one sample a prompt, and a critic."""

    algorithm: str = with_default(ExperimentConfig, "algorithm", "ppo")
    policy: AlgorithmOptions = AlgorithmOptions(group=1)
    output: str = with_default(ExperimentConfig, "output", "runs/locomo_ppo")


@dataclasses.dataclass(frozen=True)
class SFTConfig(ExperimentConfig):
    """The same options with defaults of supervised fine-tuning on generated dialogues."""

    algorithm: str = with_default(ExperimentConfig, "algorithm", "sft")
    data: str = with_default(ExperimentConfig, "data", "synthetic")
    learning_rate: float = with_default(ExperimentConfig, "learning_rate", 1e-5)
    policy: AlgorithmOptions = AlgorithmOptions(kl_weight=0.0)
    output: str = with_default(ExperimentConfig, "output", "runs/locomo_sft")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(OutputConfig, EvalConfig, AgentConfig, DataConfig):
    """All options of an evaluation."""

    extraction: ExtractorOptions = ExtractorOptions()
    eval_split: str = with_default(DataConfig, "eval_split", "test")
    output: str = with_default(OutputConfig, "output", "runs/locomo_eval")


def settled(options: Record, given: Iterable[str] | None = None, say: Callable = print) -> Record:
    """Sets what the model's folder and a recipe say, but for what was given.

    Takes and raises what `with_model_settings` and `with_recipe` do; a second call changes nothing.
    """
    return with_recipe(with_model_settings(options, given, say), given, say)
