"""The options of each command that trains or evaluates: frozen dataclasses that join groups."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any, Self

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.agent_folder import with_model_settings
from memr1_jax.agents.episode_rollout import HorizonOptions
from memr1_jax.agents.extractor import ExtractorOptions
from memr1_jax.agents.reward import RewardOptions
from memr1_jax.data.dialogues import DataConfig
from memr1_jax.data.pressure import PressureOptions
from memr1_jax.errors import UserError
from memr1_jax.evals.evaluator import EvalConfig
from memr1_jax.options import (
    Record,
    check,
    flag_values,
    with_default,
    with_options,
)
from memr1_jax.rl.imitation import ImitationOptions
from memr1_jax.rl.ppo import PPOOptions
from memr1_jax.rl.recipes import with_recipe
from memr1_jax.rl.update import GRPOOptions
from memr1_jax.training.option_groups import (
    DemonstrationConfig,
    JudgeConfig,
    LoRAConfig,
    OptimizerConfig,
    OutputConfig,
    ParallelConfig,
    RunConfig,
)


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
