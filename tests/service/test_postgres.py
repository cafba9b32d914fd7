"""The same database on PostgreSQL, on servers that the test starts on sockets of their own.

One is the system's, which has no pgvector or may not; the other is that of the package `pgserver`,
which has it.
"""

import contextlib
import importlib.util
import itertools
import os
import pwd
import random
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from scripted_agents import FEATURES, ScriptedAgents

from memr1_jax.service import ranked, schema
from memr1_jax.service.errors import Refused
from memr1_jax.service.memory import Memory
from memr1_jax.service.scope import Scope
from memr1_jax.service.search import Shelves
from memr1_jax.service.store import Store
from memr1_jax.service.transfer import export_lines, import_lines

ANA = Scope.of("ana")
_NUMBERS = itertools.count()


def _binaries(kind: str) -> Path:
    """Returns the folder of a server's programs; skips where there is none."""
    if kind == "pgvector":
        found = importlib.util.find_spec("pgserver")
        if found is None:
            pytest.skip("PostgreSQL with pgvector (the package pgserver) is not installed")
        return Path(found.origin).parent / "pginstall" / "bin"
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    program = programs[-1] if programs else shutil.which("initdb")
    if program is None:
        pytest.skip("PostgreSQL's server is not installed")
    return Path(program).parent


def _within_reach(binaries: Path, folder: Path) -> Path:
    """Copies programs that a package brought, as its environment may be closed to other users."""
    package = binaries.parents[1]
    if package.name != "pgserver":
        return binaries
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), folder / name)
    return folder / binaries.relative_to(package.parent)


@contextlib.contextmanager
def _server(binaries: Path):
    """Runs a server, and yields the URL of a database up to its name."""
    owner = {}
    if os.getuid() == 0:  # the server refuses to run as root
        account = "nobody"
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam("postgres").pw_name
        owner = {"user": account, "group": pwd.getpwnam(account).pw_gid}
    folder = Path(tempfile.mkdtemp(prefix="memr1_pg"))
    if owner:
        shutil.chown(folder, *owner.values())
        binaries = _within_reach(binaries, folder)
    quiet = {"stdout": subprocess.DEVNULL, "check": True, "cwd": folder, **owner}
    data, control = folder / "data", binaries / "pg_ctl"
    new = [binaries / "initdb", "-D", data, "-U", "memr1", "--auth=trust", "--no-sync"]
    subprocess.run(new, **quiet)
    settings = f"-c listen_addresses= -c fsync=off -k {folder}"
    log = folder / "log"
    subprocess.run([control, "-D", data, "-l", log, "-w", "-o", settings, "start"], **quiet)
    try:
        yield f"postgresql://memr1@/{{}}?host={folder}"
    finally:
        subprocess.run([control, "-D", data, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=["system", "pgvector"])
def server(request):
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with _server(_binaries(request.param)) as url:
        yield url


@pytest.fixture
def url(server):
    """Makes an empty database."""
    name = f"memories{next(_NUMBERS)}"
    _run(server.format("postgres"), f"CREATE DATABASE {name}")
    return server.format(name)


def _run(url, *statements):
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


with_pgvector = pytest.mark.parametrize("server", ["pgvector"], indirect=True)


def texts(reply):
    return sorted(item["memory"] for item in reply["results"])


def test_servers_share_a_database(url):
    with Memory(ScriptedAgents(), db=url) as one, Memory(ScriptedAgents(), db=url) as two:
        call = one.add("city is Oslo", user_id="ana", metadata={"k": [1, None]})["call"]
        (result,) = two.add("city is Rome", user_id="ana")["results"]
        assert (result["event"], result["previous_memory"]) == ("UPDATE", "city is Oslo")
        assert texts(one.search("city", user_id="ana")) == ["city is Rome"]
        one.undo(result["id"])
        assert two.answer("city", user_id="ana")["answer"] == "city is Oslo"
        two.undo(call=call)
        assert texts(one.get_all(user_id="ana")) == []
        assert len(one.history(result["id"])) == 4
        one.add("x\x00\ud800", user_id="ana", infer=False)
        assert texts(two.get_all(user_id="ana")) == ["x\ufffd\ufffd"]
        one.store.compact()
        one.reset()
        assert two.stats()["events"] == 0


def test_an_import_that_postgres_cannot_hold_is_refused_whole(url):
    with Memory(ScriptedAgents(), db=url) as memory:
        memory.add("city is Oslo", user_id="ana")
        lines = list(export_lines(memory.store, ANA))
        memory.reset()
        with pytest.raises(Refused, match="Nothing was imported"):
            import_lines(memory.store, [line.replace("Oslo", "\\u0000") for line in lines])
        assert memory.stats()["messages"] == 0
        assert import_lines(memory.store, lines) == {"messages": 1, "events": 1}
        assert texts(memory.search("city", user_id="ana")) == ["city is Oslo"]


def test_writers_of_one_scope_lose_nothing(url):
    memories = [Memory(ScriptedAgents(), db=url) for _ in range(3)]
    failures = []

    def write(memory, name):
        try:
            for place in range(5):
                memory.add(f"{name}{place} is here", user_id="all")
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=write, args=(memory, f"k{name}"))
        for name, memory in zip("abc", memories, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for memory in memories:
        assert len(texts(memory.search("here", user_id="all", top_k=50))) == 15
        memory.close()


WORDS = [f"w{number}" for number in range(30)]


def fill(memory, chance):
    """Adds, updates, deletes and undoes at random, under two users of several speakers and runs."""
    known = {"ana": [], "ben": []}
    for number in range(120):
        user = chance.choice(list(known))
        text = " ".join(chance.choices(WORDS, k=chance.randint(1, 9)))
        what = chance.choice(["add", "add", "add", "update", "delete", "undo"])
        if what == "add" or not known[user]:
            said = {"role": "user", "name": chance.choice(["Ana", "Ben", "Cy"]), "content": text}
            more = {"run_id": chance.choice([None, "r"]), "metadata": {"n": number % 5}}
            more["expiration_date"] = chance.choice([None, "2020-01-01", "2999-01-01"])
            (one,) = memory.add([said], user_id=user, infer=False, **more)["results"]
            known[user].append(one["id"])
        else:
            arguments = [chance.choice(known[user]), *([text] if what == "update" else [])]
            with contextlib.suppress(Refused):  # there may be nothing to change
                getattr(memory, what)(*arguments)


def same(found, expected, most):
    """Compares `(id, score)`, best first; equal scores may come in any order."""
    scores = [score for _, score in expected]
    np.testing.assert_allclose([score for _, score in found], scores, atol=1e-5)
    last = scores[-1] + 1e-5 if scores[most - 1 :] else -np.inf  # others may be as good
    for one, other in ((found, expected), (expected, found)):
        ids = {memory for memory, _ in other}
        assert not [memory for memory, score in one if score > last and memory not in ids]


@with_pgvector
def test_pgvector_finds_what_blocks_find(url, monkeypatch):
    chance = random.Random(0)
    cases = (
        *({}, {"top_k": 3}, {"top_k": 0}, {"top_k": 500}, {"threshold": 0.3}, {"threshold": -1}),
        *({"show_expired": True}, {"reference_date": "2010-01-01"}, {"filters": {"n": 3}}),
        *({"filters": {"speaker": "Ben"}}, {"filters": {"speaker": "x\x00"}}, {"run_id": "r"}),
        *({"filters": {"n": 3, "speaker": "Cy"}, "top_k": 2}, {"filters": {"n": {"gt": 2}}}),
    )
    with Memory(ScriptedAgents(), db=url) as one, Memory(ScriptedAgents(), db=url) as two:
        agents, worker, _ = two._parts
        two._loaded = agents, worker, Shelves(two.store, agents)
        assert (one.stats()["search"], two.stats()["search"]) == ("pgvector", "blocks of float32")
        for _ in range(2):
            fill(one, chance)
            for user, case in itertools.product(("ana", "ben", "nobody"), cases):
                query = " ".join(chance.choices(WORDS, k=3))
                replies = [m.search(query, user_id=user, **case)["results"] for m in (one, two)]
                assert all(item["user_id"] == user for item in replies[0])
                pairs = [[(item["id"], item["score"]) for item in reply] for reply in replies]
                same(*pairs, case.get("top_k", 20))
        monkeypatch.setattr(ranked, "_SPARE", 2)
        for user in ("ana", "ben"):
            query = agents.query(" ".join(WORDS[:9]))
            test = one._asked({"user_id": user}, {}, True, None)[1]
            arguments = (Scope.of(user), query, test, 10_000, 4)
            by_way = [memory._parts[2].best(*arguments) for memory in (one, two)]
            groups = [
                {
                    key: [(item[0], score) for item, score in found if whose(item[1]) == key]
                    for key in {whose(item[1]) for item, _ in found}
                }
                for found in by_way
            ]
            assert groups[0].keys() == groups[1].keys() and len(groups[0]) == 6
            for key in groups[0]:
                same(groups[0][key], groups[1][key], 4)
            for (memory, state, vector), score in by_way[0]:
                assert memory and query @ vector == pytest.approx(score, abs=1e-5)
                np.testing.assert_array_equal(vector, agents.query(state["text"]))
        assert not one._parts[2]._shelves


def whose(state):
    return state["run_id"], state["speaker"]


@with_pgvector
def test_the_nearest_that_fail_a_test_hide_nothing(url):
    """All of the nearest are of another kind, more of them than pgvector is asked for."""
    with Memory(ScriptedAgents(), db=url) as memory:
        for kind, words in (("a", ["boat"] * 130), ("b", ["boat and other things"] * 3)):
            said = [{"role": "user", "content": word} for word in words]
            memory.add(said, user_id="ana", infer=False, metadata={"kind": kind})
        for top_k, found in ((2, 2), (20, 3)):
            reply = memory.search("boat", user_id="ana", filters={"kind": "b"}, top_k=top_k)
            assert texts(reply) == ["boat and other things"] * found
        assert memory._parts[2]._shelves  # the blocks have answered


@with_pgvector
def test_servers_share_vectors(url):
    with Memory(ScriptedAgents(), db=url) as one, Memory(ScriptedAgents(), db=url) as two:
        (result,) = one.add("city is Oslo", user_id="ana")["results"]
        assert texts(two.search("Oslo", user_id="ana")) == ["city is Oslo"]
        one.update(result["id"], "city is Rome")
        one.add("pet is Rex", user_id="ana", infer=False)
        assert len(one.store.without_vector(ANA, "scripted")[ANA, 3]) == 2
        assert texts(two.search("Rome Rex", user_id="ana")) == ["city is Rome", "pet is Rex"]
        assert not one.store.without_vector(ANA, "scripted")
        one.undo(result["id"])
        assert texts(two.search("Oslo", user_id="ana")) == ["city is Oslo"]
        assert texts(two.search("Rome", user_id="ana")) == []
        one.delete(result["id"])
        assert texts(two.search("Oslo", user_id="ana")) == []
        assert two.answer("pet", user_id="ana")["answer"] == "pet is Rex"
        assert not two._parts[2]._shelves
        two.agents.digests["embedder"] = "another"
        two.agents.query = lambda text: np.ones(3, np.float32)
        for memory in (two, one, two):  # each writes its own vectors over those of the other
            assert texts(memory.search("pet", user_id="ana")) == ["pet is Rex"]


def test_servers_that_start_together_take_turns(url):
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(Store(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4 and len({store.pgvector for store in opened}) == 1
    for store in opened:
        store.close()


@with_pgvector
def test_statements_carry_their_scope(url):
    with Memory(ScriptedAgents(), db=url) as memory:
        for user in ("ana", "ben"):
            memory.add(f"city is Oslo of {user}", user_id=user, infer=False)
        said = []
        sa.event.listen(
            *(memory.store._engine, "before_cursor_execute"),
            lambda _c, _k, statement, values, _x, _m: said.append((statement, values)),
        )
        for read in (memory.search, memory.answer):
            (found,) = read("city", user_id="ana")["results"]
            assert found["user_id"] == "ana"
        on_memories = [(text, values) for text, values in said if "memories" in text]
        assert any("<#>" in text for text, _ in on_memories)
        for text, values in on_memories:
            assert "ben" not in str(values)
            if text.startswith("SELECT"):
                assert "WHERE scopes.user_id = " in text and "ana" in values.values()
            else:
                assert text.startswith("UPDATE") and "AND memories.scope = " in text


@with_pgvector
def test_vectors_are_carried_over_to_pgvector(url, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:1])
        with Memory(ScriptedAgents(), db=url) as memory:
            assert memory.stats()["search"] == "blocks of float32"
            memory.add("city is Oslo", user_id="ana")
            said = [{"role": "user", "content": f"w{number}"} for number in range(4)]
            memory.add(said, user_id="ana", infer=False)
            ids = [name for name, s in memory.store.memories(ANA).items() if "w" in s["text"]]
            rng, wide = np.random.default_rng(0), np.zeros(16_001, np.float32)
            odd = rng.normal(size=FEATURES).astype(np.float32)
            odd[:3] = 1e-40, 3e38, -0.0
            rows = [odd, wide, np.full(FEATURES, np.nan, np.float32)]
            kept = {name: row.tobytes() for name, row in zip(ids, rows, strict=False)}
            memory.store.set_vectors(ANA, "scripted", kept, 2)
            before = memory.store.snapshot(ANA, "scripted").vectors
    with Memory(ScriptedAgents(), db=url) as one, Memory(ScriptedAgents(), db=url) as two:
        after = one.store.snapshot(ANA, "scripted").vectors
        assert after == {name: row for name, row in before.items() if name not in ids[1:3]}
        assert len(after) == 2 and after[ids[0]] == odd.tobytes()
        assert "city is Oslo" in texts(one.search("city", user_id="ana"))
        assert two.stats()["search"] == "pgvector"
        assert two.add("city is Rome", user_id="ana")["results"][0]["event"] == "UPDATE"


@with_pgvector
def test_without_the_right_to_it_blocks_search(url, server):
    name = url.partition("?")[0].rpartition("/")[2]
    owner = f"plain_{name}"
    _run(url, f"CREATE ROLE {owner} LOGIN", f"ALTER DATABASE {name} OWNER TO {owner}")
    with Memory(ScriptedAgents(), db=url.replace("memr1@", f"{owner}@")) as memory:
        memory.add("city is Oslo", user_id="ana")
        assert memory.stats()["search"] == "blocks of float32"
        assert texts(memory.search("city", user_id="ana")) == ["city is Oslo"]
    _run(url, "CREATE EXTENSION vector")
    with Memory(ScriptedAgents(), db=url.replace("memr1@", f"{owner}@")) as memory:
        assert memory.stats()["search"] == "pgvector"
        assert texts(memory.search("city", user_id="ana")) == ["city is Oslo"]
    with Memory(ScriptedAgents(), db=url, fit_words=True) as memory:
        assert memory.stats()["search"] == "blocks of float32"
        assert texts(memory.search("city", user_id="ana")) == ["city is Oslo"]


@with_pgvector
def test_embedders_too_wide_for_pgvector_use_blocks(url):
    agents = ScriptedAgents()
    narrow, wide = agents.query, np.zeros(16_001 - FEATURES, np.float32)
    agents.query = lambda text: np.concatenate([narrow(text), wide])
    with Memory(agents, db=url) as memory:
        memory.add("city is Oslo", user_id="ana")
        assert texts(memory.search("city", user_id="ana")) == ["city is Oslo"]
        assert memory.stats()["search"] == "blocks of float32"
