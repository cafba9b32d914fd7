"""The registry's rows with memory management: which weights and prompts their calls name."""

import dataclasses

import pytest

from memr1_jax.bench.systems.protocol import together
from memr1_jax.bench.systems.registry import Resources, build_row
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.data.types import Conversation, Fact
from memr1_jax.errors import UserError
from tests.bench.systems.scripted import QUESTION, SESSIONS, SPEAKERS, Script, embed, reply

NOTED = Fact("Ann", "Ann has a dog.", 1, ("D1:1",))
BOTH = frozenset(("manager", "answer"))


def resources(**options):
    names = ("answer_prompt", "manager_prompt", "extraction_prompt")
    options = dict.fromkeys(names, "compact") | options
    return Resources(
        options=TableConfig(**options),
        conversations=[Conversation("c", SPEAKERS, SESSIONS, (QUESTION,), (NOTED,))],
        summaries={},
        embed=embed,
        second_embed=None,
        count=lambda text: len(text.split()),
        positions=8192,
    )


def calls_of(row, **options):
    """Returns the calls that a row makes to read the dialogue and to answer the question."""
    system = build_row(row, resources(**options), {"ppo": BOTH, "half": frozenset(("answer",))})
    script = Script(lambda call: '{"facts": ["Ann has a dog."]}')
    store = system.start(SPEAKERS)
    for session in SESSIONS:
        together([store.ingest(session)], script)
    reply(store, script)
    return script.calls


def models(calls):
    return {call.stage: call.model for call in calls}


@pytest.mark.parametrize(
    ("row", "manager", "answerer"),
    [
        ("memory_r1@ppo", "manager@ppo", "answer@ppo"),
        ("manager_only@ppo", "manager@ppo", "base"),
        ("answer_only@ppo", "base", "answer@ppo"),
        ("memory_r1", "base", "base"),
        ("mem0", "base", "base"),
    ],
)
def test_trained_and_untrained_agents(row, manager, answerer):
    calls = calls_of(row)
    assert models(calls) == {"extract": "base", "manage": manager, "answer": answerer}
    schemas = {call.schema for call in calls if call.stage == "manage"}
    assert schemas == ({""} if row == "mem0" else {"compact"})


def test_the_row_without_distillation_differs_in_the_answer_prompt_alone():
    with_it, without = calls_of("memory_r1@ppo"), calls_of("no_distillation@ppo")
    assert with_it[:-1] == without[:-1]
    assert "Write the memory that holds the answer" in with_it[-1].messages[0][1]
    assert "Write the memory" not in without[-1].messages[0][1]
    assert dataclasses.replace(with_it[-1], messages=()) == dataclasses.replace(
        without[-1], messages=()
    )


def test_an_agent_that_is_missing_is_told():
    with pytest.raises(UserError, match="half no trained manager"):
        calls_of("memory_r1@half")


@pytest.mark.parametrize(
    ("row", "stages"),
    [
        ("add_only", {"extract", "answer"}),
        ("noop", {"extract", "answer"}),
        ("random_operations", {"extract", "answer"}),
        ("a_mem", {"describe", "evolve", "query", "answer"}),
        ("tool_agent", {"manage", "answer"}),
        ("temporal_facts", {"temporal_facts", "temporal_resolve", "answer"}),
        ("memory_os", {"query", "answer"}),  # all pages still wait in the queue
        ("memory_os_lossless", {"query", "answer"}),
    ],
)
def test_rows_and_their_stages(row, stages):
    calls = calls_of(row)
    assert {call.stage for call in calls} == stages
    assert {call.model for call in calls} == {"base"}
    assert {call.max_tokens for call in calls} == {2048}


@pytest.mark.parametrize(("facts", "managed"), [("noted", 1), ("turns", 6), ("extracted", 6)])
def test_facts_come_from_where_the_table_says(facts, managed):
    stages = [call.stage for call in calls_of("mem0", facts=facts)]
    assert stages.count("manage") == managed
    assert ("extract" in stages) == (facts == "extracted")


@pytest.mark.parametrize(
    ("row", "facts"),
    [
        *(("add_only", facts) for facts in ("noted", "turns", "extracted")),
        *((row, "extracted") for row in ("mem0", "memory_r1", "a_mem", "temporal_facts")),
        *((row, "extracted") for row in ("tool_agent", "memory_os", "memory_os_lossless")),
        *((row, "extracted") for row in ("bm25_turns", "bm25_observations")),
    ],
)
def test_memories_have_the_times_of_their_own_turns(row, facts):
    timed = tuple(
        dataclasses.replace(
            session,
            turns=tuple(
                dataclasses.replace(t, time=f"minute of {t.dia_id}") for t in session.turns
            ),
        )
        for session in SESSIONS
    )
    given = resources(facts=facts)
    given = dataclasses.replace(
        given, conversations=[dataclasses.replace(given.conversations[0], sessions=timed)]
    )

    def say(call):
        if call.stage == "manage" and row == "tool_agent":
            return '{"tool": "manage_memory", "action": "create", "content": "x"}'
        if call.stage == "manage":
            return '{"op": "ADD", "text": "Ann has a dog."}'
        return '{"facts": ["Ann has a dog."]}'

    store = build_row(row, given, {}).start(SPEAKERS)
    script = Script(say)
    for session in timed:
        together([store.ingest(session)], script)
    memories = store.memories()
    assert memories
    for memory in memories:
        assert any(memory.time.endswith(f"minute of {turn}") for turn in memory.sources)
    assert not any(s.time in text for c in script.calls for _, text in c.messages for s in SESSIONS)
