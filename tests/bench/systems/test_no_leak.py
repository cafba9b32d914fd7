"""No question, evidence or gold answer reaches the management of memory, even once it was asked."""

import json

import pytest

from memr1_jax.agents.prompt_files import find_prompt, prompt_names
from memr1_jax.bench.systems.amem import AMemSystem
from memr1_jax.bench.systems.crud import CrudSystem
from memr1_jax.bench.systems.extraction import extracted_facts, turn_facts
from memr1_jax.bench.systems.management_prompts import PACKAGE, ROLES
from memr1_jax.bench.systems.managers import language_model_manager
from memr1_jax.bench.systems.memoryos import MemoryOSSystem
from memr1_jax.bench.systems.protocol import together
from memr1_jax.bench.systems.temporal import TemporalSystem
from memr1_jax.bench.systems.tool_agent import ToolAgentSystem
from tests.bench.systems.scripted import (
    QUESTION,
    SESSIONS,
    SPEAKERS,
    Script,
    embed,
    held,
    last,
    reply,
    stage,
)

SYSTEMS = [
    CrudSystem("mem0", extracted_facts(), language_model_manager(embed, "full"), embed, stage()),
    CrudSystem("turns", turn_facts, language_model_manager(embed), embed, stage("full")),
    AMemSystem("a_mem", embed, stage()),
    MemoryOSSystem("memory_os", embed, stage(), keep_unpaired=True, queue=1, hot=2.0),
    ToolAgentSystem("tool_agent", embed, stage()),
    TemporalSystem("temporal_facts", embed, stage()),
]
ANSWERING = ("answer", "query")  # stages that are shown the question
ASKED = ("whereabouts", "dwelling")  # words of the question that the dialogue does not have
GOLD = ("farmstead", "brother's")


def say(call):
    """Says something of use for every stage; it repeats what is asked, as a leak would."""
    said = last(call).splitlines()[-2:]
    one = {"id": 0, "text": "Rex is a dog.", "context": "c", "tags": ["t"], "fact": "Rex is here."}
    values = {
        "facts": [one | {"valid_from": "May 2023", "valid_to": ""}],
        "memory": [{"id": "0", "text": "Rex is a dog.", "event": "ADD"}],
        "keywords": said,
        "context": "A talk.",
        "tags": ["talk"],
        "should_evolve": True,
        "actions": ["strengthen", "update_neighbor"],
        "links": [0],
        "neighbors": [one],
        "continues": True,
        "summary": "They talk.",
        "topics": [{"theme": "dog", "keywords": ["dog"], "summary": "The dog Rex."}],
        "profile": "Ann is kind.",
        "first": ["Ann has Rex."],
        "second": ["Ben drinks tea."],
        "resolutions": [{"fact": 0, "duplicates": [0], "contradicts": []}],
        "tool": "manage_memory",
        "action": "create",
        "content": "Rex is a dog.",
    }
    if call.stage == "answer":
        return f"{' '.join(said)} **Answer:** {QUESTION.question}"
    if last(call).endswith("Operations:"):
        return '{"op": "ADD", "text": "Rex is a dog."}'
    if "You are the manager of a memory system" in last(call):
        return json.dumps({"memory": values["memory"]})
    return json.dumps(values)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_what_is_asked_leaves_no_trace(system):
    asked, unasked = Script(say), Script(say)
    stores = system.start(SPEAKERS), system.start(SPEAKERS)
    for session in SESSIONS:
        together([stores[0].ingest(session)], asked)
        answer = reply(stores[0], asked)
        assert "dwelling" in answer.response
        together([stores[1].ingest(session)], unasked)

    managing = [call for call in asked.calls if call.stage not in ANSWERING]
    assert managing == unasked.calls
    assert held(stores[0]) == held(stores[1]) != []
    for call in managing:
        text = str(call.messages).lower()
        assert not [word for word in (*ASKED, *GOLD) if word in text]
    for call in asked.calls:
        text = str(call.messages)
        assert "farmstead" not in text
        assert not [source for source in QUESTION.evidence if source in text]
    answering = [call for call in asked.calls if call.stage in ANSWERING]
    assert answering and all("dwelling" in last(call) for call in answering)


def test_every_prompt_file_is_used_by_some_system():
    instructions = set()
    for system in SYSTEMS:
        script, store = Script(say), system.start(SPEAKERS)
        for session in SESSIONS:
            together([store.ingest(session)], script)
        reply(store, script)
        instructions |= {call.messages[0][1] for call in script.calls}
    texts = {n: find_prompt(n, "", PACKAGE, ROLES) for n in prompt_names(PACKAGE)}
    used = {name for name, prompt in texts.items() if prompt.messages[0][1] in instructions}
    assert used == texts.keys() - {"facts_compact"}  # the first system's variant
