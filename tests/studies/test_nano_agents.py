"""Makes the nano agents, in small."""

import dataclasses
import json

import pytest

from memr1_jax.agents.agent_folder import read_settings
from memr1_jax.models.hf.hf_config import read_config
from memr1_jax.studies.nano_agents import SHAPE, NanoAgentsConfig, make_nano_agents

SMALL = dataclasses.replace(
    SHAPE,
    num_layers=2,
    layer_kinds=SHAPE.layer_kinds[:2],
    model_width=32,
    head_size=8,
    mlp_width=32,
)


@pytest.mark.slow
def test_they_are_made_with_what_they_need_to_be_used(tmp_path):
    options = NanoAgentsConfig(
        output=str(tmp_path / "run"),
        **{"steps": 6, "dialogues": 6, "test_dialogues": 3, "tokens": 256},
    )
    folder = make_nano_agents(options, SMALL)
    settings = read_settings(folder)
    assert settings.facts == "extracted" and settings.options["memory_width"] == 32
    assert settings.embedder is not None
    assert read_config(folder) == SMALL
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["held_out"].keys() == {"extract", "manager", "answer"}
    assert all(found.keys() == {"equal", "copied"} for found in report["held_out"].values())
