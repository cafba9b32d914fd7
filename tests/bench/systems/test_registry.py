"""Every row by its name: built from shared resources, and at work on a generated dialogue."""

import dataclasses
import re

import numpy as np
import pytest
from scripted_agents import ScriptedAgents

from memr1_jax.bench.harness import run_row
from memr1_jax.bench.systems.protocol import Reply
from memr1_jax.bench.systems.registry import ROWS, Resources, build_row
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.data.locomo import load_conversations
from memr1_jax.data.synthetic import write_synthetic
from memr1_jax.errors import UserError

TRAINED = {"grpo": frozenset({"manager", "answer"}), "half": frozenset({"manager"})}
NO_MODEL = ("noop", "random_operations", "add_only", "shuffled_times", "question_only", "oracle")
AFTER_AT = ("memory_r1", "manager_only", "answer_only", "no_distillation", "reranker")


def words(text):
    return len(text.split())


def embed(texts):
    """Counts of letters."""
    return np.array([[text.lower().count(c) for c in "aeiourstln"] for text in texts], np.float32)


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "dialogues.json"
    write_synthetic(path, 3, train=0, validation=0, test=1, num_sessions=2, facts_per_session=3)
    conversations = load_conversations(path)
    summaries = {
        c.id: {s.number: f"Session {s.number}." for s in c.sessions} for c in conversations
    }
    options = TableConfig(
        answer_prompt="compact",
        manager_prompt="compact",
        facts="noted",
        answer_response_length=100,
        manager_response_length=100,
        memories=4,
        reranked=2,
        chunk_tokens=40,
        last_tokens=30,
    )
    return Resources(options, conversations, summaries, embed, embed, words, positions=4000)


def work(resources, name):
    """Returns the row's run, and the calls that it made."""
    seen = []

    def run(calls):
        seen.extend(calls)
        texts = ["**Answer:** tea" if c.stage == "answer" else '{"op": "NONE"}' for c in calls]
        return [Reply(text, 9, 3, True, 0.1) for text in texts]

    system = build_row(name, resources, TRAINED)
    return run_row(system, resources.conversations, run, words), seen


@pytest.mark.parametrize("row", [row for row in ROWS if row != "service"])
def test_every_row_answers_every_question(resources, row):
    name = f"{row}@grpo" if row in AFTER_AT else row
    result, calls = work(resources, name)
    asked = sum(len(conversation.questions) for conversation in resources.conversations)
    assert len(result.answered) == asked
    assert {item.answer for item in result.answered} == {"tea"}
    assert sum(call.stage == "answer" for call in calls) == asked
    if row in NO_MODEL:
        assert {call.stage for call in calls} == {"answer"}


def test_floors_and_ceilings(resources):
    recalls = {}
    for name in ("noop", "question_only", "oracle", "full_context"):
        answered = work(resources, name)[0].answered
        found = [item.evidence.recall for item in answered if item.evidence.recall is not None]
        recalls[name] = sum(found) / len(found)
    assert recalls == {"noop": 0, "question_only": 0, "oracle": 1, "full_context": 1}


@pytest.mark.parametrize(
    ("row", "manager", "answer"),
    [
        ("mem0_constrained", "base", "base"),
        ("memory_r1@grpo", "manager@grpo", "answer@grpo"),
        ("manager_only@half", "manager@half", "base"),
        ("answer_only@grpo", "base", "answer@grpo"),
        ("no_distillation@grpo", "manager@grpo", "answer@grpo"),
    ],
)
def test_who_plays_which_agent(resources, row, manager, answer):
    _, calls = work(resources, row)
    assert {call.model for call in calls if call.stage == "manage"} == {manager}
    assert {call.model for call in calls if call.stage == "answer"} == {answer}
    assert {call.schema for call in calls if call.stage == "manage"} == {"compact"}
    assert {call.schema for call in work(resources, "mem0")[1] if call.stage == "manage"} == {""}


def test_selection_is_asked_for_only_with_distillation(resources):
    def instruction(name):
        return {call.messages[0][1] for call in work(resources, name)[1] if call.stage == "answer"}

    assert "Write the memory that holds the answer" in instruction("memory_r1@grpo").pop()
    for name in ("no_distillation@grpo", "reranker@grpo"):
        assert "Write the memory" not in instruction(name).pop()


@pytest.mark.parametrize("row", ["mem0", "tool_agent"])
def test_banks_show_as_many_memories_as_the_table_says(resources, row):
    assert build_row(row, resources, TRAINED).memories == resources.options.memories


def test_the_reranker_thins_what_was_retrieved(resources):
    free = dataclasses.replace(resources, agents="")
    name = "reranker"  # the backbone plays both

    def run(calls):
        texts = []
        for call in calls:
            facts = re.findall(r"^- (.*)$", call.messages[-1][1], re.MULTILINE)
            written = [f'{{"op": "ADD", "text": "{fact}"}}' for fact in facts]
            texts.append("\n".join(written) if call.stage == "manage" else "**Answer:** x")
        return [Reply(text, 9, 3, True, 0.1) for text in texts]

    def shown(row):
        made = run_row(build_row(row, free, {}), free.conversations, run, words)
        return [len(item.memories) for item in made.answered]

    assert min(shown("no_distillation")) > 2
    assert set(shown(name)) == {2}


def test_what_is_missing_is_said(resources):
    with pytest.raises(UserError, match="no row 'magic'"):
        build_row("magic", resources, TRAINED)
    with pytest.raises(UserError, match="run folder ppo"):
        build_row("memory_r1@ppo", resources, TRAINED)
    with pytest.raises(UserError, match="half no trained answer"):
        build_row("memory_r1@half", resources, TRAINED)
    with pytest.raises(UserError, match="no summaries"):
        build_row("bm25_summaries", dataclasses.replace(resources, summaries={}), TRAINED)
    bare = [dataclasses.replace(c, facts=()) for c in resources.conversations]
    for row in ("add_only", "dense_observations"):
        with pytest.raises(UserError, match="notes no"):
            build_row(row, dataclasses.replace(resources, conversations=bare), TRAINED)


def test_the_service_asks_no_engine(resources):
    made = []

    def load_agents(*models):
        made.append(models)
        return ScriptedAgents()

    options = dataclasses.replace(resources.options, facts="turns")
    given = dataclasses.replace(resources, options=options, load_agents=load_agents)
    result, calls = work(given, "service@grpo")
    asked = sum(len(conversation.questions) for conversation in resources.conversations)
    assert len(result.answered) == asked and not calls
    assert made == [("manager@grpo", "answer@grpo")]
    with pytest.raises(UserError, match="facts=noted"):
        build_row("service", resources, {})


def test_prompts_fit_the_model(resources):
    small = dataclasses.replace(resources, positions=600)
    answered, calls = work(small, "full_context")
    assert answered.without_room > 0
    assert max(sum(words(text) for _, text in call.messages) for call in calls) <= 500
