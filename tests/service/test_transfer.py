"""Export and import: all of a scope or nothing."""

import json

import pytest
from scripted_agents import ScriptedAgents

from memr1_jax.service.errors import Refused
from memr1_jax.service.memory import Memory
from memr1_jax.service.scope import Scope
from memr1_jax.service.transfer import export_lines, import_lines


@pytest.fixture
def exported(tmp_path):
    with Memory(ScriptedAgents(), db=tmp_path / "old.db") as memory:
        memory.add("other is here", user_id="ben")
        said = ["city is Oslo", "city is Rome", "garbled is this", "hello there you", "pet is Rex"]
        for text in said:
            memory.add(text, user_id="ana", run_id="r", timestamp="2026-05-08")
        memory.retry(user_id="ana")
        (pet,) = memory.search("Rex", user_id="ana")["results"]
        memory.undo(pet["id"])
        yield memory, list(export_lines(memory.store, Scope.of("ana")))


def test_a_scope_is_the_same_in_another_database(exported, tmp_path):
    old, lines = exported
    with Memory(ScriptedAgents(), db=tmp_path / "new.db") as new:
        new.add("more is here", user_id="zoe")  # other numbers for rows
        assert import_lines(new.store, lines) == {"messages": 5, "events": 7}
        read = [memory.get_all(user_id="ana") for memory in (old, new)]
        assert read[0] == read[1]
        (held,) = read[0]["results"]
        mine, theirs = (m.history(held["id"]) for m in (old, new))
        assert [{**line, "id": 0} for line in mine] == [{**line, "id": 0} for line in theirs]
        states = [m.store.memories(Scope.of("ana"))[held["id"]] for m in (old, new)]
        contents = [
            [row.content for row in m.store.messages(Scope.of("ana"), ids=state["sources"])]
            for m, state in zip((old, new), states, strict=True)
        ]
        assert contents == [["city is Oslo", "city is Rome"]] * 2
        new.agents.broken = False
        assert [r["event"] for r in new.retry(user_id="ana")["results"]] == ["ADD"]
        (item,) = new.add("city is Bonn", user_id="ana", run_id="r")["results"]
        assert (item["event"], item["id"]) == ("UPDATE", held["id"])
        with pytest.raises(Refused, match="already"):
            import_lines(new.store, lines)


def test_what_is_no_export_is_refused_whole(exported, tmp_path):
    _, lines = exported
    event = json.loads(lines[-1])
    wrong = [
        lines[1:],
        ["{"],
        ["[]"],
        [*lines, "null"],
        [*lines, "{"],
        [*lines, json.dumps({**event, "user_id": "", "run_id": ""})],
        [*lines, json.dumps({**event, "user_id": "ben"})],
        [*lines, json.dumps({**event, "table": "scopes"})],
        [*lines, json.dumps({**event, "kind": "NEW"})],
        [*lines, json.dumps({**event, "before": {"text": "x"}})],
        [*lines, json.dumps({**event, "reverts": 999})],
        [*lines, json.dumps({**event, "more": 1})],
    ]
    with Memory(ScriptedAgents(), db=tmp_path / "new.db") as new:
        for given in wrong:
            with pytest.raises(Refused):
                import_lines(new.store, given)
        assert new.stats()["events"] == new.stats()["messages"] == 0
