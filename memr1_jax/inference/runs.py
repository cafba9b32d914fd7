"""Runs from Python: trains as the command line does, and hands over what came of it."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memr1_jax.evals.report.summary import COLUMNS, summary
from memr1_jax.inference.agents import Agents
from memr1_jax.inference.loading import load
from memr1_jax.run.markdown import text_table
from memr1_jax.training.config import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of training: its folder, what it changed, and the agents that it exported."""

    folder: Path

    def table(self) -> str:
        """Returns rewards and scores before and after training, as plain text."""
        rows = summary(self.folder)
        return text_table(COLUMNS, rows) if rows else "(nothing was measured)"

    def agents(self, **options: Any) -> Agents:
        """Loads the agents that the run exported; options as in `load`."""
        return load(self.folder, **options)

    def __str__(self) -> str:
        """Returns the folder and the table."""
        return f"{self.folder}\n{self.table()}"


def train(
    config: ExperimentConfig,
    output: str | os.PathLike = "",
    reward: Callable[..., Any] | None = None,
) -> Run:
    """Evaluates both agents, trains them, evaluates them again and exports them.

    Args:
      config: all options; see `Config.quickstart` and `Config.paper`.
      output: the run folder, in place of the one that `config` names.
      reward: what an answer earns, in place of the outcome that `config` names: a function of its
        words and of the gold answer's; see `agents/outcomes.py`.

    Raises:
      UserError: an option, the data or the folder will not do; nothing is lost.
      Preempted: Ctrl-C or SIGTERM ended the run after it was saved; `config.replace(resume=True)`
        resumes it.
    """
    from memr1_jax.training.experiment import Experiment

    if os.fspath(output):
        config = config.replace(output=os.fspath(output))
    if reward is not None:
        config = dataclasses.replace(config, reward=config.reward.with_function(reward))
    experiment = Experiment(config)
    experiment.run()
    return Run(experiment.folder)
