r"""Measures what a rollout saves by drafts, and by answering each distinct prompt once.

Weights, dialogues and prompts are those of an experiment before its first step. Forms are called in
turn, so that a busy machine slows all alike, and every ratio is taken within one run.

    python -m experiments.bench_rollout --flagfile=experiments/flags/quickstart.flags
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from experiments.bench_step import interleaved, wall_and_processor
from experiments.command_line import run
from memr1_jax.agents import consult
from memr1_jax.agents.agent_pair import AgentPair, Models, build_agent_pair, load_models
from memr1_jax.agents.ingest import add_everything, ingest
from memr1_jax.data.dialogues import load_dialogues
from memr1_jax.models.sampler import Sampling
from memr1_jax.options import at_least, option
from memr1_jax.run.progress import table
from memr1_jax.run.streams import run_key
from memr1_jax.training.build import (
    build_learner,
    initial_state,
    make_frozen,
    make_policy,
    untrained,
)
from memr1_jax.training.checks import check_options
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.loop import batch_rows, metric_values
from memr1_jax.training.step import Policy
from memr1_jax.training.training_data import answer_data, manager_data


@dataclasses.dataclass(frozen=True)
class BenchRolloutConfig(ExperimentConfig):
    """Set what is measured, and how often; the rest are the options of the experiment."""

    repeats: int = option(3, "Timed rollouts of each form; the median counts.", within=at_least(1))
    drafts: int = option(4, "Drafted tokens of the form with drafts.", within=at_least(1))
    dialogues: int = option(8, "Dialogues that the prompts come from.", within=at_least(1))


def main(options: BenchRolloutConfig) -> None:
    """Measures the rollouts of the agents that learn, each in all its forms."""
    check_options(options)
    with tempfile.TemporaryDirectory() as folder:
        learned, _ = load_dialogues(options, options.seed, Path(folder))
    learned = learned[: options.dialogues]
    models = load_models(options)
    pair = build_agent_pair(options, models, learned)
    if options.agent != "manager":
        banks = ingest(add_everything, None, pair.tools, pair.encoder, learned).banks
        data = answer_data(options, pair, models, learned, banks)
        _measure(options, "answer", pair, models, data)
    if options.agent != "answer":
        _measure(options, "manager", pair, models, manager_data(options, pair, models, learned))


def _measure(
    options: BenchRolloutConfig, agent: str, pair: AgentPair, models: Models, data: Any
) -> None:
    """Prints a table of the forms of one agent's rollout."""
    policy = make_policy(options, pair, models, agent)
    frozen = make_frozen(options, models, agent, untrained(options, models.answerer))
    params = initial_state(options, build_learner(options, agent), agent, models.of(agent), None)
    rows = batch_rows(options.seed, 0, data.rows, options.batch, agent)
    batch = jax.tree.map(jnp.asarray, data).select(jnp.asarray(rows), jnp.ones(len(rows), bool))
    arguments = (params.params, frozen, pair.tools, batch, run_key(options.seed, agent))

    forms = {"one token a pass": 0, f"{options.drafts} drafts a pass": options.drafts}
    programs = {
        name: _compiled(options, _drafting(policy, d), arguments) for name, d in forms.items()
    }
    if agent == "manager":
        with mock.patch.object(consult, "once_each", _every):
            every = _compiled(options, _drafting(policy, 0), arguments)
        programs = {"one token a pass, every prompt answered": every} | programs
    calls = [functools.partial(program, *arguments) for program in programs.values()]
    times = interleaved(calls, options.repeats, wall_and_processor)
    values = [metric_values(call()) for call in calls]
    rows = [
        [
            name,
            *(f"{value:.2f}" for pair in zip(took, times[0] / took, strict=True) for value in pair),
            *(
                _shown(found, key)
                for key in ("tokens_per_pass", "distinct_prompts", "reward_outcome")
            ),
        ]
        for name, took, found in zip(programs, times, values, strict=True)
    ]
    columns = ["seconds", "times faster", "CPU seconds", "times less", "tokens a pass"]
    title = f"Rollout of the {agent} agent: {options.batch} prompts, group {options.policy.group}"
    table(title, ["form", *columns, "distinct prompts", "outcome"], rows)


def _shown(values: dict[str, float], name: str) -> str:
    return f"{values[name]:.3f}" if name in values else ""


def _drafting(policy: Policy, drafts: int) -> Policy:
    """Returns the policy with other drafts, of the frozen Answer Agent too."""
    agent = dataclasses.replace(policy.agent, draft_tokens=drafts)
    answerer = policy.answerer
    if answerer is not None:
        asked = dataclasses.replace(answerer.agent, draft_tokens=drafts)
        answerer = dataclasses.replace(answerer, agent=asked)
    return dataclasses.replace(policy, agent=agent, answerer=answerer)


def _compiled(options: BenchRolloutConfig, policy: Policy, arguments: tuple) -> Callable:
    """Compiles one rollout, of its metrics alone."""
    sampling = Sampling.create(options.policy.temperature)

    def rollout(params, frozen, tools, batch, key):
        group = options.policy.group
        return policy.rollout(params, frozen, tools, batch, key, sampling, group=group).metrics

    return jax.jit(rollout).lower(*arguments).compile()


def _every(function, prompt, active, empty, size=0):
    """Answers every prompt, whether or not others are equal."""
    return function(prompt, active), active


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(BenchRolloutConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
