"""The command line of a memory: verbs, forms of output, files and errors."""

import io
import json

import pytest
from scripted_agents import ScriptedAgents

from experiments.__main__ import main
from memr1_jax.errors import UserError
from memr1_jax.service.memory import Memory


@pytest.fixture
def memr1(tmp_path, monkeypatch, capsys):
    """Runs `memr1 memory ...` with scripted agents and returns what it printed.

    A `UserError` is raised again, once it was seen on stderr with status 2.
    """
    monkeypatch.setenv("MEMR1_DB", str(tmp_path / "m.db"))
    monkeypatch.setattr(
        "memr1_jax.service.cli.open_memory", lambda given: Memory(ScriptedAgents(), db=given.db)
    )

    def call(*words, told="", db=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(told))
        elsewhere = ["--db", str(db)] if db else []
        try:
            main(["memr1", "memory", *words, *elsewhere])
        except SystemExit as ended:
            printed = capsys.readouterr().err
            assert ended.code == 2 and printed.startswith("Error: ")
            raise UserError(printed) from None
        return capsys.readouterr().out

    return call


def test_the_way_from_add_to_undo(memr1):
    added = memr1("add", "city is Oslo", "-u", "ana")
    assert "ADD  city is Oslo" in added
    assert "UPDATE  city is Rome  (was: city is Oslo)" in memr1("add", "city is Rome", "-u", "ana")
    (held,) = json.loads(memr1("list", "-u", "ana", "--json"))["results"]
    assert held["memory"] == "city is Rome"
    assert "city is Rome" in memr1("search", "city", "-u", "ana")
    assert memr1("ask", "city?", "-u", "ana").startswith("city is Rome\n")
    assert json.loads(memr1("get", held["id"], "-o", "json")) == held
    assert "updated" in memr1("update", held["id"], "city is Bonn")
    assert memr1("history", held["id"]).count("UPDATE") == 2
    assert "city is Rome" in memr1("undo", held["id"])
    table = memr1("list", "-u", "ana", "-o", "table").splitlines()
    heads = [cell.strip() for cell in table[1].split("┃")]
    assert heads[1:-1] == ["id", "memory", "time", "user"]
    assert "city is Rome" in table[3]
    assert memr1("diff", "2000-01-01", "-u", "ana").startswith("added\n")
    assert memr1("diff", "2999-01-01", "-u", "ana") == "Nothing changed.\n"
    assert memr1("list", "-u", "ana", "--as-of", "2000-01-01") == "(none)\n"
    assert memr1("retry", "-u", "ana") == "(none)\n"
    assert "deleted" in memr1("delete", held["id"])
    assert "compacted" in memr1("compact") and "UNDO" in memr1("history", held["id"])
    assert "memories: 0" in memr1("stats") and "user_id=ana: 0 memories" in memr1("stats")
    with pytest.raises(UserError, match="later event"):
        memr1("undo", "--call", added.split("--call ")[1].strip())


def test_messages_come_from_files_and_standard_input(memr1, tmp_path):
    assert "city is Oslo" in memr1("add", "-u", "a", told="city is Oslo")
    said = [{"role": "user", "content": f"k{i} is {i}"} for i in range(20)]
    file = tmp_path / "said.json"
    file.write_text(json.dumps(said))
    assert len(json.loads(memr1("add", "-f", str(file), "-u", "b", "--json"))["calls"]) == 2
    file.write_text("\n".join(map(json.dumps, said)))
    assert memr1("add", "-f", str(file), "-u", "c").count("ADD") == 20
    file.write_text(json.dumps({"messages": said[:2]}))
    assert memr1("add", "-f", str(file), "-u", "d").count("ADD") == 2


def test_files_of_messages_are_read_as_all_other_json(memr1, tmp_path):
    said = [{"role": "user", "content": f"k{i} is a\u2028b"} for i in range(2)]
    file = tmp_path / "said.jsonl"
    file.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in said))
    assert memr1("add", "-f", str(file), "-u", "a").count("ADD") == 2
    file.write_text("[" * 100_000)
    with pytest.raises(UserError, match="nested too deeply"):
        memr1("add", "-f", str(file), "-u", "a")


def test_an_export_is_imported_elsewhere(memr1, tmp_path):
    memr1("add", "city is Oslo", "-u", "ana")
    lines = memr1("export", "-u", "ana")
    assert memr1("import", "-", told=lines, db=tmp_path / "b.db") == "messages: 1\nevents: 1\n"
    assert "city is Oslo" in memr1("list", "-u", "ana", db=tmp_path / "b.db")
    with pytest.raises(UserError, match="already"):
        memr1("import", "-", told=lines)


@pytest.mark.parametrize(
    "words, told",
    [
        (("add", "x"), "at least one"),
        (("add", "x", "-f", "y", "-u", "a"), "not both"),
        (("add", "-f", "/none/file", "-u", "a"), "cannot be read"),
        (("get", "none"), "no memory"),
        (("undo",), "one of"),
        (("list", "-u", "a b"), "white space"),
        (("list", "-u", "a", "--as-of", "soon"), "no time"),
        (("delete", "none", "-u", "a"), "not both"),
        (("add", "-u", "a", "--metadata", "[1]", "x"), "metadata"),
    ],
)
def test_what_is_wrong_is_said(memr1, words, told):
    with pytest.raises(UserError, match=told):
        memr1(*words)


def test_lines_that_are_no_messages_are_refused(memr1, tmp_path):
    for text in ('{"role": "user"\n{}', '[{"role": "user", "content": 7}]', "[]", '{"a": 1}\nx'):
        (tmp_path / "said").write_text(text)
        with pytest.raises(UserError):
            memr1("add", "-f", str(tmp_path / "said"), "-u", "a")
    (tmp_path / "said").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        memr1("add", "-f", str(tmp_path / "said"), "-u", "a")


def test_the_server_refuses_open_addresses_before_it_loads_anything(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("MEMR1_API_KEY", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["memr1", "serve", "--host", "0.0.0.0", "--db", str(tmp_path / "m.db")])
    assert ended.value.code == 2 and "MEMR1_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "m.db").exists()


def test_chats_of_other_programs_are_imported(memr1, tmp_path, capsys):
    lines = [f"2023-05-{1 + i:02}, 13:56 - Kim: k{i} is x\n" for i in range(20)]
    (path := tmp_path / "chat.txt").write_text("".join(lines))
    assert "messages: 20\nbefore: 0\nADD: 20\n" in memr1("import", str(path), "-u", "ana")
    assert memr1("import", str(path), "-u", "ana").endswith("before: 20\n")
    with pytest.raises(UserError, match="user_id"):
        memr1("import", str(path))
    with pytest.raises(UserError, match="cannot be read"):
        memr1("import", str(tmp_path / "none"), "-u", "ana")
