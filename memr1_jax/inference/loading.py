"""Loads a pair of agents: the shipped one, a run folder, or Hugging Face folders and names."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.agent_folder import FACTS, AgentSettings, read_settings
from memr1_jax.agents.agent_pair import build_agent_pair, load_models
from memr1_jax.agents.extractor import ExtractorOptions
from memr1_jax.agents.told_facts import extraction_of
from memr1_jax.errors import UserError
from memr1_jax.inference.agents import Agents
from memr1_jax.models.hf.sources import published_name, resolve_model
from memr1_jax.options import check, user_path
from memr1_jax.run.json_files import read_json_object
from memr1_jax.run.run_folder import RECORD

_NANO = "nano_agents"  # for use, where the model nano is a start to train from
_BACKGROUND = 60  # generated dialogues whose words stand for those of an unknown training set


def load(
    name: str | os.PathLike,
    answer: str | os.PathLike = "",
    *,
    extractor: str | os.PathLike = "",
    facts: str = "",
    facts_prompt: str = "",
    **options: Any,
) -> Agents:
    """Loads a Memory Manager and an Answer Agent.

    Args:
      name: "nano" for the small agents that the package carries, which understand simple English
        statements; a run folder; what `memr1 push` published, as owner/name; or the
        manager's model, a Hugging Face folder or name.
      answer: the Answer Agent's model, where it is another one.
      extractor: the model that extracts facts, where it is another one.
      facts: what the manager is told of a turn: "turns" as they stand, "sentences" of them, or what
        a model has "extracted". By default what the agents were trained on.
      facts_prompt: the prompt that extracts facts, by name or path, in place of the one that the
        agents were trained with.
      **options: any field of `AgentConfig`, in place of what the agents were trained with.

    Raises:
      UserError: there are no such agents, or an option does not fit them.
    """
    manager, answerer, trained = _folders(name, answer)
    settings = read_settings(manager) or read_settings(answerer)
    settings = settings or AgentSettings({}, "turns", None)
    extractor = os.fspath(extractor)
    if trained is not None and not extractor:
        extractor = str(trained)
        learned = read_settings(trained) or settings
        settings = dataclasses.replace(settings, facts="extracted", extraction=learned.extraction)
    known = {field.name for field in dataclasses.fields(AgentConfig)}
    if strange := sorted(set(options) - known):
        raise UserError(
            f"There is no option {', '.join(strange)} of agents. Options are"
            f" {', '.join(sorted(known))}."
        )
    named = {"model": str(manager), "answer_model": str(answerer)}
    chosen = AgentConfig(**named | settings.options | options)
    check(chosen)
    # Nobody notes facts of what is said here: turns stand for them.
    facts = facts or settings.facts.replace("noted", "turns")
    if facts not in FACTS[1:]:
        raise UserError(f"facts={facts!r} is none of {', '.join(FACTS[1:])}.")
    models = load_models(chosen)
    background = [] if settings.embedder is not None else _background()
    pair = build_agent_pair(chosen, models, background, settings.embedder)
    extraction = None
    if facts == "extracted":
        length = chosen.manager_response_length
        how = settings.extraction or ExtractorOptions(turn_width=64, response_length=length)
        how = dataclasses.replace(
            how, model=extractor or how.model, prompt=facts_prompt or how.prompt
        )
        try:
            extraction = extraction_of(chosen, how, pair, models)
        except UserError as error:
            if extractor or not how.model:
                raise
            raise UserError(
                f"{error} {how.model} extracted the facts that these agents were trained on. Name"
                " a model as extractor=..., or choose facts='sentences'."
            ) from error
    return Agents(chosen, models, pair, facts, extraction)


def _folders(name, answer) -> tuple[Path, Path, Path | None]:
    """Finds the model folders of manager and Answer Agent, and that of an extractor if trained."""
    name, answer = os.fspath(name), os.fspath(answer)
    run = user_path(name)
    if os.path.isdir(run / "export") or os.path.isfile(run / RECORD):
        manager, answerer = (_agent_of_run(run, agent) for agent in ("manager", "answer"))
        extractor = run / "export" / "extractor"
        trained = resolve_model(extractor) if extractor.is_dir() else None
        return manager, resolve_model(answer) if answer else answerer, trained
    try:
        manager = resolve_model(_NANO if name == "nano" and not os.path.exists(name) else name)
    except UserError:
        if answer or not published_name(name):
            raise
        return *_published_pair(name), None
    return manager, resolve_model(answer) if answer else manager, None


def _published_pair(name: str) -> tuple[Path, Path]:
    """Finds both repositories of a pair on the hub; called where `name` alone is no model."""
    try:
        return resolve_model(f"{name}-manager"), resolve_model(f"{name}-answer")
    except UserError as error:
        raise UserError(f"{error} Nor is there a pair {name}-manager and {name}-answer.") from error


def _agent_of_run(run: Path, agent: str) -> Path:
    """Finds what a run exported of an agent, or the model it left as it was."""
    if os.path.isdir(run / "export" / agent):
        return resolve_model(run / "export" / agent)
    if not os.path.isdir(run / "export"):
        raise UserError(
            f"The run in {run} has exported no agents. Resume it with --export, or load a model"
            " folder."
        )
    flag = "--model" if agent == "manager" else "--answer_model"
    inputs = read_json_object(run / RECORD, "Name the two model folders yourself.").get("inputs")
    try:
        return resolve_model((inputs or {})[flag]["name"])
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{run / RECORD} does not name the model of the {agent} agent, which the run did not"
            " train. Name the two model folders yourself."
        ) from error


def _background():
    from memr1_jax.data.synthetic import generate_conversations

    return generate_conversations(0, _BACKGROUND, open_words=0.5)
