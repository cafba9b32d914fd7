"""The small agents that the package carries for use, on plain English."""

import pytest

from memr1_jax.inference.loading import load
from memr1_jax.models.hf.sources import resolve_model

MOVED = [("Ana", "I live in Oslo."), ("Ana", "I moved to Bergen.")]
TOLD = {
    "My sister Lena works as a nurse.": "user's sister Lena works as a nurse.",
    "I'm allergic to peanuts.": "user is allergic to peanuts.",
    "We adopted a dog called Rex.": "user has a dog called Rex.",
    "How are you?": "",
}
ASKED = {
    "What does Lena do?": "nurse",
    "What am I allergic to?": "peanuts",
    "What is my dog called?": "Rex",
}


@pytest.fixture(scope="module")
def agents():
    return load("nano")


@pytest.fixture(scope="module")
def remembered(agents):
    """Returns what was remembered of a person who moves, and of plain statements."""
    statements = [("user", text) for text in TOLD]
    return agents.remember_all([(MOVED, None), (statements, None)])


def test_they_are_small(agents):
    files = resolve_model("nano_agents").iterdir()
    assert sum(file.stat().st_size for file in files) < 3e6
    assert agents.facts == "extracted"


def test_they_answer_as_the_readme_says(agents, remembered):
    memories = remembered[0].memories
    assert [memory.text for memory in memories] == ["Ana now lives in Bergen."]
    assert agents.answer("Where does Ana live?", memories) == "Bergen"


def test_they_extract_what_was_said_and_answer_from_it(agents, remembered):
    memories = remembered[1].memories
    assert [memory.text for memory in memories] == [fact for fact in TOLD.values() if fact]
    answers = agents.answer_all([(question, memories) for question in ASKED])
    assert {q: a.answer for q, a in zip(ASKED, answers, strict=True)} == ASKED
