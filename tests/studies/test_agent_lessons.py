"""Lessons written on the host, compared with those that the agents' own programs make."""

import numpy as np
import pytest

from memr1_jax.agents.agent_pair import build_agent_pair, load_models
from memr1_jax.agents.extractor import create_extractor, prompt_tokens, turn_rows
from memr1_jax.studies import agent_lessons
from memr1_jax.studies.agent_lessons import LessonWriter
from memr1_jax.studies.nano import NANO_SIZES
from memr1_jax.studies.nano_agents import everyday_dialogues
from memr1_jax.studies.nano_lessons import demonstrated
from memr1_jax.training.config import ExperimentConfig

SIZES = NANO_SIZES | {"max_prompt_length": 200, "manager_response_length": 60, "memory_width": 40}


@pytest.fixture(scope="module")
def made():
    """Returns the models, the agents, a writer of lessons, and dialogues."""
    config = ExperimentConfig(model="nano", **SIZES)
    models, dialogues = load_models(config), everyday_dialogues(1, 3)
    pair = build_agent_pair(config, models, dialogues)
    extractor = create_extractor(models.manager, "compact_nano", 200, 60)
    writer = LessonWriter(pair, extractor, models.manager.tokenizer)
    return models, pair, extractor, writer, dialogues


def trimmed(lessons, instruction):
    rows = zip(*lessons, strict=True)
    return [
        ([*instruction, *prompt[:length].tolist()], response[:size].tolist())
        for prompt, length, response, size in rows
    ]


def test_prompts_and_responses_are_those_of_the_demonstrations(made, monkeypatch):
    models, pair, _, writer, dialogues = made
    for share in ("_ALONE", "_FEWER", "_UNSPACED"):
        monkeypatch.setattr(agent_lessons, share, 0.0)
    found, right = writer.lessons(dialogues, 0), demonstrated(pair, models, dialogues)
    for agent, acting in (("manager", pair.manager), ("answer", pair.answerer)):
        wanted = trimmed(right[agent], acting.template.instruction)
        assert len(wanted) > 20
        assert [(lesson.prompt, lesson.response) for lesson in found[agent]] == wanted


def test_turns_are_shown_as_the_extractor_shows_them(made):
    models, pair, extractor, writer, dialogues = made
    found = writer.lessons(dialogues, 0)["extract"]
    told = {turn.text: turn.speaker for d in dialogues for turn in d.turns}
    rows = turn_rows(pair.encoder, [(who, "", text) for text, who in told.items()], 64)
    prompts, lengths = map(np.asarray, prompt_tokens(extractor, rows))
    instruction = list(extractor.template.instruction)
    shown = {tuple(instruction + p[:n].tolist()) for p, n in zip(prompts, lengths, strict=True)}
    assert sum(tuple(lesson.prompt) in shown for lesson in found) > len(found) / 2
    decode = models.manager.tokenizer.decode
    assert all(decode(lesson.response)[:1] in "-N" for lesson in found)
