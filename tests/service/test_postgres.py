"""The same database on PostgreSQL, on a server that the test starts on a socket of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from scripted_agents import ScriptedAgents

from memr1_jax.service.memory import Memory


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).parent if program else None


@pytest.fixture(scope="module")
def url():
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed")
    owner = {}
    if os.getuid() == 0:  # the server refuses to run as root
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("as root the server needs the account postgres")
        owner = {"user": "postgres", "group": "postgres"}
    folder = Path(tempfile.mkdtemp(prefix="memr1_pg"))
    if owner:
        shutil.chown(folder, *owner.values())
    quiet = {"stdout": subprocess.DEVNULL, "check": True, "cwd": folder, **owner}
    data, control = folder / "data", binaries / "pg_ctl"
    new = [binaries / "initdb", "-D", data, "-U", "memr1", "--auth=trust", "--no-sync"]
    subprocess.run(new, **quiet)
    settings = f"-c listen_addresses= -c fsync=off -k {folder}"
    log = folder / "log"
    subprocess.run([control, "-D", data, "-l", log, "-w", "-o", settings, "start"], **quiet)
    try:
        yield f"postgresql://memr1@/postgres?host={folder}"
    finally:
        subprocess.run([control, "-D", data, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder, ignore_errors=True)


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
