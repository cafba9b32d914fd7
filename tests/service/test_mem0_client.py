"""mem0's own client, unchanged, against a live server."""

import threading

import pytest
from scripted_agents import ScriptedAgents
from service.live import live

from memr1_jax.service.memory import Memory
from memr1_jax.service.server import create_app


@pytest.fixture
def address(tmp_path):
    with (
        Memory(ScriptedAgents(), db=tmp_path / "m.db") as memory,
        live(create_app(memory, key="secret")) as found,
    ):
        yield found


def test_the_hosted_clients_calls_work_unchanged(address, monkeypatch, tmp_path):
    monkeypatch.setenv("MEM0_TELEMETRY", "False")
    monkeypatch.setenv("MEM0_DIR", str(tmp_path))
    mem0 = pytest.importorskip("mem0", reason="mem0ai is not installed")
    client = mem0.MemoryClient(host=address, api_key="secret")
    (result,) = client.add("city is Oslo", user_id="ana")["results"]
    client.add([{"role": "user", "content": "pet is Rex"}], user_id="ana", metadata={"k": 1})
    filters = {"user_id": "ana"}
    found = client.search("city", filters=filters, top_k=1)["results"]
    assert [item["memory"] for item in found] == ["city is Oslo"]
    assert client.get_all(filters=filters)["count"] == 2
    assert client.get_all(filters={**filters, "k": 1}, page=1, page_size=5)["count"] == 1
    assert client.get(result["id"])["memory"] == "city is Oslo"
    client.update(result["id"], text="city is Rome")
    assert [line["event"] for line in client.history(result["id"])] == ["ADD", "UPDATE"]
    assert [entity["name"] for entity in client.users()["results"]] == ["ana"]
    client.batch_update([{"memory_id": result["id"], "text": "city is Bonn"}])
    client.delete(result["id"])
    with pytest.raises(Exception, match="no memory"):
        client.get(result["id"])
    client.delete_all(user_id="ana")
    assert client.get_all(filters=filters)["results"] == []
    client.add("city is Oslo", user_id="ben")
    client.delete_users(user_id="ben")
    with pytest.raises(ValueError, match="API key"):
        mem0.MemoryClient(host=address, api_key="wrong")


def test_many_clients_at_once(address):
    import httpx2

    failures = []

    def use(name):
        try:
            with httpx2.Client(base_url=address, headers={"X-API-Key": "secret"}) as client:
                for place in range(3):
                    body = {"messages": f"k{place} is {name}", "user_id": name}
                    assert client.post("/memories", json=body, timeout=60).status_code == 200
                found = client.get("/memories", params={"user_id": name}).json()["results"]
                assert [item["memory"] for item in found] == [f"k{i} is {name}" for i in range(3)]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(f"u{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
