"""The tool agent: calls of tools, what it is told, numbers of memories, and when it ends."""

import json

from memr1_jax.bench.systems.tool_agent import ToolAgentSystem
from memr1_jax.data.types import Session, Turn
from tests.bench.systems.scripted import (
    JUNE,
    MAY,
    SESSIONS,
    Script,
    counted,
    embed,
    held,
    last,
    read,
    reply,
    stage,
)

DONE = '{"tool": "done"}'


def tool(**fields):
    return json.dumps({"tool": "manage_memory"} | fields)


def search(query):
    return json.dumps({"tool": "search_memory", "query": query})


def turns_of(call):
    """Returns the message, and what was written and told since."""
    first = max(i for i, (_, text) in enumerate(call.messages) if text.startswith("Person:"))
    return [text for _, text in call.messages[first:]]


def say(call):
    if call.stage == "answer":
        return "**Answer:** brother"
    message, *since = turns_of(call)
    if "dog" in message:
        return f"{tool(action='create', content='Ann has a dog named Rex.')}\n{DONE}"
    if "Oslo" in message:
        create = tool(action="create", content="Ben lives in Oslo.")
        return create if not since else DONE
    if "chess" in message:
        return f"{search('Ann')}\n{search('dog')}" if not since else "Nothing else."
    if "tea" in message:
        bad = [
            tool(action="update", id=0, content="Not shown."),
            tool(action="create"),
            tool(action="forget", id=0),
            '{"tool": "web_search", "query": "tea"}',
            '{"tool": "manage_memory", "action": "create", "content": "Ben dri',
        ]
        return "\n".join(bad) + "<cut>" if not since else DONE
    if "brother" in message:
        steps = [
            search("dog Rex"),
            tool(action="update", id="0", content="Rex lives with\nAnn's brother."),
            DONE,
        ]
    else:
        steps = [
            search("where Ben lives"),
            f"{tool(action='delete', id=0)}\n{tool(action='delete', id=0)}",
            search("where Ben lives"),
            tool(action="create", content="Ben lives in Bergen."),
        ]
    return steps[len(since) // 2]


def system(**options):
    return ToolAgentSystem("tool_agent", embed, stage(), **options)


def test_banks_counters_and_what_the_agent_is_told():
    script = Script(say)
    store = read(system(), script)
    assert held(store) == [
        ("Rex lives with Ann's brother.", JUNE, "Ann", ("D1:1", "D2:1")),
        ("Ben lives in Bergen.", JUNE, "Ben", ("D2:2",)),
    ]
    assert counted(store) == {
        "add": 3,
        "update": 1,
        "delete": 1,
        "search": 5,
        "skipped": 3,
        "unknown_ids": 1,
        "gone_ids": 1,
        "manage_read": 13,
        "manage_failed": 1,
        "manage_cut": 1,
        "rounds_spent": 1,
    }
    told = [last(call) for call in script.calls if last(call).startswith("Results:")]
    assert told == [
        "Results:\nStored.",
        "Results:\n0: Ann has a dog named Rex.\n0: Ann has a dog named Rex.",
        "Results:\nThere is no memory with this number.\n" + "\n".join(
            ["This call could not be read."] * 3
        ),
        "Results:\n0: Ann has a dog named Rex.",
        "Results:\n0: Ben lives in Oslo.",
        "Results:\nUpdated.",
        "Results:\nDeleted.\nThis memory was deleted before.",
        "Results:\n(none)",
    ]  # fmt: skip


def test_agents_of_both_speakers_work_side_by_side_and_forget_messages():
    script = Script(say)
    read(system(), script, SESSIONS[:1])
    assert [len(batch) for batch in script.batches] == [2, 2, 2, 1]
    for call in script.calls:
        own = [turn.text for turn in SESSIONS[0].turns if turn.text in str(call.messages)]
        assert len(own) == 1
    message = turns_of(script.calls[0])[0]
    assert message == f"Person: Ann\nMessage: {MAY} | Ann: I adopted a dog, Rex."


def test_a_chat_has_an_agent_for_the_user_alone():
    store = system().start(("user", "assistant"))
    turns = (Turn("user", "I have a dog.", "D1:1"), Turn("assistant", "A dog!", "D1:2"))
    calls = next(store.ingest(Session(1, MAY, turns)))
    assert [turns_of(call)[0] for call in calls] == [
        f"Person: user\nMessage: {MAY} | user: I have a dog."
    ]


def test_the_answer_is_made_from_both_banks():
    script = Script(say)
    store = read(system(), script)
    answer = reply(store, script)
    assert {memory.owner for memory in answer.memories} == {"Ann", "Ben"}
    assert script.stages()[-1] == ["answer"]
