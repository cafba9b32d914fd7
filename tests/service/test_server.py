"""The HTTP server: mem0's routes, those of its hosted client, keys and limits."""

import pytest
from scripted_agents import ScriptedAgents
from starlette.testclient import TestClient

from memr1_jax.errors import UserError
from memr1_jax.service.guards import RateLimit, check_address
from memr1_jax.service.memory import Memory
from memr1_jax.service.routes import ROUTES
from memr1_jax.service.server import create_app

HERE = "http://127.0.0.1:8765"


@pytest.fixture
def memory(tmp_path):
    with Memory(ScriptedAgents(), db=tmp_path / "m.db") as opened:
        yield opened


@pytest.fixture
def client(memory):
    return TestClient(create_app(memory), HERE, raise_server_exceptions=False)


def said(text):
    return [{"role": "user", "content": text}]


def test_mem0s_open_routes(client):
    body = {"messages": said("city is Oslo"), "user_id": "ana", "metadata": {"k": 1}}
    (result,) = client.post("/memories", json=body).json()["results"]
    client.post("/memories", json={**body, "messages": "pet is Rex"})
    assert len(client.get("/memories", params={"user_id": "ana"}).json()["results"]) == 2
    assert len(client.get("/memories?user_id=ana&top_k=1").json()["results"]) == 1
    path = f"/memories/{result['id']}"
    assert client.get(path).json()["memory"] == "city is Oslo"
    found = client.post("/search", json={"query": "city", "filters": {"user_id": "ana"}}).json()
    assert [item["memory"] for item in found["results"]] == ["city is Oslo"]
    assert client.post("/search", json={"query": "city", "user_id": "ana"}).json() == found
    assert "updated" in client.put(path, json={"text": "city is Rome"}).json()["message"]
    assert client.put(path, json={"expiration_date": "2000-01-01"}).status_code == 200
    assert len(client.get("/memories?user_id=ana&show_expired=true").json()["results"]) == 2
    events = [line["event"] for line in client.get(f"{path}/history").json()]
    assert events == ["ADD", "UPDATE", "UPDATE"]
    assert client.delete(path).json() == {"message": "Memory deleted successfully!"}
    assert client.delete("/memories", params={"user_id": "ana"}).status_code == 200
    assert client.get("/stats").json()["memories"] == 0
    assert client.post("/reset").status_code == 200
    assert client.get("/stats").json()["events"] == 0


def test_what_is_added_to_mem0s_routes(client):
    call = client.post("/memories", json={"messages": "city is Oslo", "user_id": "ana"}).json()
    reply = client.post("/answer", json={"query": "city?", "user_id": "ana"}).json()
    assert reply["answer"] == "city is Oslo" and reply["memories"]
    changed = client.post("/diff", json={"before": "2000-01-01", "user_id": "ana"}).json()
    assert len(changed["added"]) == 1
    assert client.post("/undo", json={"call": call["call"]}).json()["results"][0]["memory"] is None
    assert client.post("/retry", json={"user_id": "ana"}).json() == {"results": []}


def test_the_routes_of_the_hosted_client(client):
    assert client.get("/v1/ping/").json()["status"] == "ok"
    body = {"messages": said("city is Oslo"), "user_id": "ana", "run_id": "r"}
    (result,) = client.post("/v3/memories/add/", json=body).json()["results"]
    body = {"messages": said("pet is Rex"), "filters": {"user_id": "ana", "run_id": "r"}}
    client.post("/v3/memories/add/", json=body)
    filters = {"filters": {"AND": [{"user_id": "ana"}]}}
    page = client.post("/v3/memories/?page=2&page_size=1", json=filters).json()
    assert [item["memory"] for item in page["results"]] == ["pet is Rex"]
    assert page["next"] is None and page["previous"] and page["count"] == 2
    found = client.post("/v3/memories/search/", json={"query": "city", **filters, "top_k": 1})
    assert found.json()["results"][0]["memory"] == "city is Oslo"
    path = f"/v1/memories/{result['id']}/"
    assert client.get(path).json()["id"] == result["id"]
    assert client.put(path, json={"text": "city is Rome"}).status_code == 200
    assert len(client.get(f"{path}history/").json()) == 2
    assert {
        e["name"]: e["total_memories"] for e in client.get("/v1/entities/").json()["results"]
    } == {**{"ana": 2, "r": 2}}
    batch = {"memories": [{"memory_id": result["id"], "text": "city is Bonn"}]}
    assert client.put("/v1/batch/", json=batch).status_code == 200
    assert client.get(path).json()["memory"] == "city is Bonn"
    assert client.request("DELETE", "/v1/batch/", json=batch).status_code == 200
    assert client.get(path).status_code == 404
    assert client.delete("/v2/entities/user/ana/").status_code == 200
    assert client.delete("/v2/entities/app/x/").status_code == 404
    assert client.delete("/v1/memories/?user_id=ana").status_code == 200


@pytest.mark.parametrize(
    "method, path, body, status",
    [
        ("POST", "/memories", b'{"messages": "x"}', 400),
        ("POST", "/memories", b'{"user_id": "ana"}', 400),
        ("POST", "/memories", b'{"messages": 7, "user_id": "ana"}', 400),
        ("POST", "/memories", b"[]", 400),
        ("POST", "/memories", b"{", 400),
        ("POST", "/memories", b"\xff", 400),
        ("POST", "/memories", b"[" * 100_000, 400),
        ("POST", "/memories", b'{"messages": "' + b"x" * 5_000_000 + b'"}', 413),
        ("GET", "/memories", b"", 400),
        ("GET", "/memories?user_id=ana&top_k=x", b"", 400),
        ("GET", "/memories/none", b"", 404),
        ("PUT", "/memories/none", b'{"text": "x"}', 404),
        ("PUT", "/memories/none", b'{"memory_id": "other"}', 400),
        ("GET", "/memories/none/history", b"", 404),
        ("DELETE", "/memories/none", b"", 404),
        ("DELETE", "/memories", b"", 400),
        ("POST", "/search", b'{"user_id": "ana"}', 400),
        ("POST", "/search", b'{"query": "x"}', 400),
        ("POST", "/search", b'{"query": "x", "filters": [1]}', 400),
        ("POST", "/v3/memories/add/", b'{"messages": "x", "filters": [1]}', 400),
        ("POST", "/v3/memories/?page=0", b'{"filters": {"user_id": "ana"}}', 400),
        ("POST", "/answer", b"{}", 400),
        ("POST", "/undo", b"{}", 400),
        ("POST", "/undo", b'{"event_id": 7}', 404),
        ("POST", "/diff", b'{"user_id": "ana"}', 400),
        ("PUT", "/v1/batch/", b'{"memories": [1]}', 400),
    ],
)
def test_what_is_wrong_is_said(client, method, path, body, status):
    reply = client.request(method, path, content=body)
    assert reply.status_code == status
    assert reply.json()["detail"].endswith((".", ")."))


def test_a_key_guards_all_but_health(memory):
    client = TestClient(create_app(memory, key="secret", rate=0))
    assert client.get("/health").json() == {"status": "ok"}
    ways = [{"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}]
    ways += [{"Authorization": "Token secret"}]  # the hosted client's
    for method, path, _ in ROUTES:
        assert client.request(method, path).status_code == 401
        assert client.request(method, path, headers={"X-API-Key": b"s\xe9cret"}).status_code == 401
    for headers in ways:
        assert client.get("/v1/ping/", headers=headers).status_code == 200
    assert client.get("/metrics").status_code == 401
    assert client.get("/v1/ping/", headers={"Authorization": "Basic secret"}).status_code == 401


def test_addresses_that_others_reach_need_a_key():
    check_address("127.0.0.1", "")
    check_address("0.0.0.0", "secret")
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", ""):
        with pytest.raises(UserError, match="MEMR1_API_KEY"):
            check_address(host, "")


def test_requests_are_counted_and_described(client):
    client.get("/memories/none")
    told = client.get("/metrics").text
    assert 'memr1_requests_total{route="GET /memories/{memory_id}",status="404"} 1' in told
    described = client.get("/docs").json()["paths"]
    assert sum(map(len, described.values())) == len(ROUTES)


def test_a_failure_is_told_and_counted(client):
    body = {"messages": "crash", "user_id": "ana"}
    assert client.post("/memories", json=body).status_code == 500
    assert 'route="POST /memories",status="500"} 1' in client.get("/metrics").text
    body = {"messages": "city is Oslo", "user_id": "ana"}
    assert client.post("/memories", json=body).status_code == 200


def test_the_time_line_tells_messages_and_what_became_of_them(client):
    for text in ("city is Oslo", "city is Rome"):
        client.post("/memories", json={"messages": text, "user_id": "ana"})
    first, second = client.get("/timeline", params={"user_id": "ana"}).json()["results"]
    assert (
        first["message"]["content"] == "city is Oslo" and first["events"][0]["output"] == "output"
    )
    (event,) = second["events"]
    assert (event["event"], event["old_memory"], event["stands"]) == (
        "UPDATE",
        "city is Oslo",
        True,
    )
    client.post("/undo", json={"event_id": event["id"]})
    *_, second, undone = client.get("/timeline?user_id=ana").json()["results"]
    assert undone["message"] is None and not second["events"][0]["stands"]
    assert len(client.get("/timeline?user_id=ana&top_k=1").json()["results"]) == 1
    assert client.get("/timeline").status_code == 400
    assert client.get("/timeline?user_id=ana&top_k=0").status_code == 400


def test_the_rate_of_a_client_is_limited(memory):
    now = [0.0]
    limit = RateLimit(2, lambda: now[0])
    assert [limit.seconds_to_wait("a") for _ in range(5)] == [0, 0, 0, 0, 1]
    assert limit.seconds_to_wait("b") == 0
    now[0] = 0.5
    assert [limit.seconds_to_wait("a") for _ in range(2)] == [0, 1]
    client = TestClient(create_app(memory, rate=1), HERE)
    replies = [client.get("/stats") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert replies[2].headers["Retry-After"] == "1" and "again" in replies[2].json()["detail"]
    assert client.get("/health").status_code == 200


def test_pages_of_other_sites_are_refused(memory, client):
    assert client.get("/stats", headers={"Origin": HERE}).status_code == 200
    for headers in ({"Origin": "https://example.org"}, {"Origin": "null"}, {"Host": "[x"}):
        assert client.get("/stats", headers=headers).status_code == 403
    assert client.get("/stats", headers={"Host": "example.org"}).status_code == 403
    guarded = TestClient(create_app(memory, key="secret"), "http://memory.example.org")
    assert guarded.get("/stats", headers={"X-API-Key": "secret"}).status_code == 200


def test_the_inspector_loads_nothing_else(client):
    reply = client.get("/")
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "'self'" in policy
    assert "//" not in reply.text.partition("<script>")[0] and "innerHTML" not in reply.text
