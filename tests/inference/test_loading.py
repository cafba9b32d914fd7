"""Checks what `load` finds: model folders, run folders, and how their agents were trained."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from tiny_model import SIZES, make_tiny, tiny_folder

from memr1_jax.agents.agent_folder import read_settings, write_settings
from memr1_jax.agents.extractor import ExtractorOptions
from memr1_jax.errors import UserError
from memr1_jax.inference.loading import load
from memr1_jax.models.hf.folders import folder_digest
from memr1_jax.training.config import AgentConfig, EvaluationConfig, ExperimentConfig, settled

AGENT = {name: value for name, value in SIZES.items() if name in AgentConfig.__dataclass_fields__}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns a run that trained the manager alone."""
    folder = tmp_path_factory.mktemp("run")
    exported = shutil.copytree(tiny_folder(), folder / "export" / "manager")
    tiny = make_tiny()
    write_settings(exported, tiny.options, "noted", tiny.pair.encoder.embedder)
    named = {"name": str(tiny_folder()), "digest": ""}
    (folder / "run.json").write_text(json.dumps({"inputs": {"--answer_model": named}}))
    return folder


def test_a_run_is_loaded_as_it_was_trained(run):
    tiny, agents = make_tiny(), load(run)
    assert {name: getattr(agents.options, name) for name in AGENT} == AGENT
    assert agents.facts == "turns"  # there is nobody to note facts
    assert agents.models.manager.folder == run / "export" / "manager"
    assert agents.models.answerer.folder == tiny_folder()  # as the run left it
    found, there = agents.pair.encoder.embedder, tiny.pair.encoder.embedder
    np.testing.assert_array_equal(found.weight, there.weight)
    assert load(run, memories=2).options.memories == 2
    assert load(run / "export" / "manager").models.answerer.folder == run / "export" / "manager"


def test_settings_are_no_part_of_a_models_digest(run):
    assert folder_digest(run / "export" / "manager") == folder_digest(tiny_folder())


def test_what_the_extractor_cannot_say_is_a_decision_without_facts():
    agents = load(tiny_folder(), facts="extracted", **AGENT)
    (found,) = agents.remember_all([([("Ana", "I live in Oslo.")], None)])
    (decision,) = found.decisions
    assert not decision.readable and decision.facts == () and decision.output
    assert len(found.memories) == 0 and found.memories.turns == 1


def test_the_extractor_has_the_prompt_and_the_sizes_that_it_was_trained_with(tmp_path):
    exported = shutil.copytree(tiny_folder(), tmp_path / "extractor")
    how = ExtractorOptions(prompt="compact", turn_width=20, response_length=9)
    options = dataclasses.replace(make_tiny().options, manager_prompt="compact_nano")
    write_settings(exported, options, "extracted", None, how)
    found = load(exported)._extraction.extractor
    assert (found.turn_width, found.response_length) == (20, 9)
    assert found.template.name == "facts_compact"
    mine = tmp_path / "mine.txt"
    mine.write_text("role: facts\n[user]\n{speaker} says: {turn}\n")
    assert load(exported, facts_prompt=str(mine))._extraction.extractor.template.name == str(mine)


def test_facts_are_extracted_by_the_model_that_did_so_in_training(tmp_path):
    exported = shutil.copytree(tiny_folder(), tmp_path / "manager")
    other = shutil.copytree(tiny_folder(), tmp_path / "other")
    how = ExtractorOptions(model=str(other), response_length=9)
    write_settings(exported, make_tiny().options, "extracted", None, how)
    assert load(exported)._extraction.model.folder == other
    assert load(exported, extractor=exported)._extraction.model.folder == exported
    agents = load(exported)
    agents.remember_all([([("Ana", "I live in Oslo.")], None)])
    shutil.rmtree(other)
    with pytest.raises(UserError, match="extracted the facts that these agents were trained on"):
        load(exported)


def test_an_extractor_that_a_run_trained_is_used(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    exported = shutil.copytree(tiny_folder(), folder / "export" / "extractor")
    how = ExtractorOptions(turn_width=20, response_length=9)
    write_settings(exported, make_tiny().options, "extracted", None, how)
    agents = load(folder)
    assert agents.facts == "extracted" and agents._extraction.model.folder == exported
    assert agents._extraction.extractor.turn_width == 20


def test_what_the_manager_cannot_say_changes_nothing():
    agents = load(tiny_folder(), **AGENT | {"constrained": False})
    (found,) = agents.remember_all([([("Ana", "I live in Oslo.")], None)])
    (decision,) = found.decisions
    assert not decision.readable and decision.facts == ("Ana: I live in Oslo.",)
    assert decision.changes == () and len(found.memories) == 0


def test_wrong_names_are_told_in_a_sentence(tmp_path, run):
    with pytest.raises(UserError, match="no option size of agents"):
        load("nano", size=3)
    with pytest.raises(UserError, match="facts='words' is none of turns, sentences, extracted"):
        load("nano", facts="words")
    with pytest.raises(UserError, match="There is no folder"):
        load(tmp_path / "nothing")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="exported no agents"):
        load(tmp_path)
    shutil.copytree(run / "export", tmp_path / "export")
    with pytest.raises(UserError, match="does not name the model of the answer agent"):
        load(tmp_path)


def test_the_nano_model_knows_its_own_sizes():
    told = []
    options = settled(EvaluationConfig(model="nano"), say=told.append)
    assert (options.memories, options.manager_prompt) == (3, "compact_nano")
    assert len(told) == 1 and "--memories=3" in told[0] and "--model=nano" in told[0]
    again = settled(options, say=told.append)
    assert again is options and len(told) == 1


def test_what_was_given_wins_over_the_models_settings():
    given = ExperimentConfig(model="nano", memories=7)
    assert settled(given, say=str).memories == 7
    # Given as it is by default, which the flags alone can tell.
    given = ExperimentConfig(model="nano")
    assert settled(given, ["model", "memories"], str).memories == ExperimentConfig().memories
    assert settled(ExperimentConfig(model="nano", model_settings=False), say=str).memories == 30


@pytest.mark.parametrize("text", ["[]", "{", '{"options": {"size": 3}, "facts": "turns"}', "7"])
def test_damaged_settings_are_told_with_the_file(tmp_path, text):
    (tmp_path / "memr1_jax.json").write_text(text)
    with pytest.raises(UserError, match="memr1_jax.json does not say"):
        read_settings(tmp_path)
