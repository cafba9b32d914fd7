"""The examples of a memory next to other programs, with scripted agents."""

import importlib.util
import json
from pathlib import Path

import pytest
from scripted_agents import ScriptedAgents

from memr1_jax.service.memory import Memory

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def memory(tmp_path):
    with Memory(ScriptedAgents(), db=tmp_path / "m.db") as opened:
        yield opened


def test_a_chat_is_told_what_is_remembered(memory, monkeypatch):
    chat, asked = example("chat_with_memory"), []

    class Reply:
        def raise_for_status(self):
            return self

        def json(self):
            return {"choices": [{"message": {"content": "Hello!"}}]}

    def post(url, **request):
        asked.append((url, request["json"]["messages"][0]["content"]))
        return Reply()

    monkeypatch.setattr(chat.httpx2, "post", post)
    ask = lambda line: chat.reply(memory, "http://x/v1", "m", "ana", line)  # noqa: E731
    assert ask("city is Oslo") == "Hello!" and ask("which city?") == "Hello!"
    assert asked[0][0] == "http://x/v1/chat/completions" and "- nothing" in asked[0][1]
    assert asked[1][1].endswith(": city is Oslo")


def test_langmems_two_tools(memory):
    tools = example("memory_tools")
    manage = tools.create_manage_memory_tool(memory, "ana")
    search = tools.create_search_memory_tool(memory, "ana")
    assert manage("city is Oslo").startswith("ADD ")
    (found,) = json.loads(search("city"))
    manage("city is Rome", "update", id=found["id"])
    manage("pet is Rex")
    assert [item["memory"] for item in json.loads(search("city", limit=1))] == ["city is Rome"]
    assert json.loads(search("city", offset=1)) == []
    assert json.loads(search("city", filter={"speaker": "Lou"})) == []
    with pytest.raises(ValueError, match="no memory"):
        tools.create_manage_memory_tool(memory, "ben")(action="delete", id=found["id"])
    manage(action="delete", id=found["id"])
    assert json.loads(search("city")) == []
    for wrong in ({"action": "delete"}, {"content": "x", "id": "y"}):
        with pytest.raises(ValueError, match="id"):
            manage(**wrong)
