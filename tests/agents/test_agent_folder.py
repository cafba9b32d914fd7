"""The settings in an exported folder, damaged in ways of all kinds."""

import json

import pytest

from memr1_jax.agents.agent_folder import SETTINGS, read_settings, write_settings
from memr1_jax.agents.extractor import ExtractorOptions
from memr1_jax.errors import UserError
from memr1_jax.training.config import ExperimentConfig


def test_settings_are_read_as_they_were_written(tmp_path):
    assert read_settings(tmp_path) is None
    write_settings(tmp_path, ExperimentConfig(memories=7), "turns", None)
    found = read_settings(tmp_path)
    assert (found.options["memories"], found.facts, found.embedder) == (7, "turns", None)


def test_model_prompt_and_sizes_of_an_extractor_are_kept(tmp_path):
    extraction = ExtractorOptions(model="x", prompt="mine.txt", turn_width=7, response_length=9)
    write_settings(tmp_path, ExperimentConfig(), "turns", None, extraction)
    assert read_settings(tmp_path).extraction is None  # nothing is extracted
    write_settings(tmp_path, ExperimentConfig(), "extracted", None, extraction)
    assert read_settings(tmp_path).extraction == extraction
    settings = json.loads((tmp_path / SETTINGS).read_text())
    settings["extraction"]["turn_width"] = 0
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(UserError, match="--turn_width=0 must be at least 1"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"memories": "x"}, "turns"),
        ({"memories": -1}, "turns"),
        ({"memories": None}, "turns"),
        ({"answer_prompt": ["x"]}, "turns"),
        ({"\ud83d": 1}, "turns"),
        ({"model": "x"}, "turns"),
        ({}, "\ud83d"),
        ({}, []),
        ([], "turns"),
        ([["memories", 7, 8]], "turns"),
        (None, "turns"),
    ],
)
def test_damaged_settings_are_refused_in_a_sentence(tmp_path, options, facts):
    (tmp_path / SETTINGS).write_text(json.dumps({"options": options, "facts": facts}))
    with pytest.raises(UserError, match="does not say how these agents are used") as error:
        read_settings(tmp_path)
    str(error.value).encode()
