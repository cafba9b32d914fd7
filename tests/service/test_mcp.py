"""The MCP server, driven by the SDK's own client."""

import asyncio
import json
import sys

import pytest
from scripted_agents import ScriptedAgents
from service.live import live

from memr1_jax.service.mcp_server import create_server
from memr1_jax.service.memory import Memory

TOOLS = {
    *("add_memory", "search_memories", "get_memories", "get_memory", "update_memory"),
    *("delete_memory", "answer_from_memory", "memory_history", "undo"),
}


@pytest.fixture
def memory(tmp_path):
    with Memory(ScriptedAgents(), db=tmp_path / "m.db") as opened:
        yield opened


def drive(server, use):
    from mcp import Client

    async def run():
        async with Client(server) as client:

            async def call(name, **arguments):
                reply = await client.call_tool(name, arguments)
                assert not reply.is_error, reply.content
                assert json.loads(reply.content[0].text) == reply.structured_content
                return reply.structured_content

            await use(client, call)

    asyncio.run(run())


def test_tools_tell_what_they_take_and_do(memory):
    async def use(client, _):
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == TOOLS
        for name, tool in tools.items():
            reads = name.startswith(("search", "get", "answer", "memory"))
            assert tool.annotations.read_only_hint == reads
            assert tool.annotations.destructive_hint == name.startswith(
                ("update", "delete", "undo")
            )
            assert tool.description and tool.input_schema["type"] == "object"
            assert tool.output_schema["type"] == "object"
        assert tools["add_memory"].input_schema["required"] == ["text"]

    drive(create_server(memory), use)


@pytest.fixture(params=["in process", "streamable HTTP"])
def server(memory, request):
    made = create_server(memory)
    if request.param == "in process":
        yield made
        return
    with live(made.streamable_http_app()) as address:
        yield f"{address}/mcp"


def test_all_tools_work(server):
    async def use(_, call):
        added = await call("add_memory", text="city is Oslo", timestamp="2026-05-08")
        (result,) = added["results"]
        own = {"memory_id": result["id"]}
        await call("add_memory", text="city is Rome", timestamp="2026-06-08")
        await call("add_memory", text="city is Bonn", user_id="ben")
        (found,) = (await call("search_memories", query="city"))["results"]
        assert found["memory"] == "city is Rome"
        (then,) = (await call("get_memories", as_of="2026-05-31"))["results"]
        assert then["memory"] == "city is Oslo"
        assert (await call("get_memory", **own))["user_id"] == "user"
        assert (await call("answer_from_memory", question="city?"))["answer"] == "city is Rome"
        await call("update_memory", **own, text="city is Bern")
        await call("delete_memory", **own)
        assert (await call("undo", **own))["results"][0]["memory"] == "city is Bern"
        lines = (await call("memory_history", **own))["results"]
        assert [line["event"] for line in lines] == ["ADD", "UPDATE", "UPDATE", "DELETE", "UNDO"]
        more = await call("add_memory", text="pet is Rex")
        await call("undo", call=more["call"])
        assert len((await call("get_memories"))["results"]) == 1

    drive(server, use)


def test_what_is_wrong_is_said_to_the_model(memory):
    async def use(client, _):
        for name, arguments, told in (
            ("get_memory", {"memory_id": "none"}, "no memory"),
            ("undo", {}, "one of memory_id"),
            ("add_memory", {"text": "x", "timestamp": "soon"}, "timestamp"),
        ):
            reply = await client.call_tool(name, arguments)
            assert reply.is_error and told in reply.content[0].text

    drive(create_server(memory), use)


def test_a_client_starts_it_as_a_process(tmp_path):
    from mcp.client.stdio import StdioServerParameters

    with Memory(ScriptedAgents(), db=tmp_path / "m.db") as memory:
        memory.add("city is Oslo", user_id="ana")
    words = ["-m", "experiments", "mcp", "--db", str(tmp_path / "m.db"), "-u", "ana"]

    async def use(_, call):
        (held,) = (await call("get_memories"))["results"]
        assert held["memory"] == "city is Oslo"
        await call("delete_memory", memory_id=held["id"])
        await call("undo", memory_id=held["id"])

    drive(StdioServerParameters(command=sys.executable, args=words), use)
