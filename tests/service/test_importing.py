"""Import of chats from other programs: their times, their order, and resuming."""

import json

import pytest
from scripted_agents import ScriptedAgents

from memr1_jax.errors import UserError
from memr1_jax.service.importing import import_chats
from memr1_jax.service.memory import Memory


@pytest.fixture
def memory(tmp_path):
    with Memory(ScriptedAgents(), db=tmp_path / "m.db") as opened:
        yield opened


def chat(*lines):
    return "".join(f"2023-05-{day:02}, 13:56 - {name}: {text}\n" for day, name, text in lines)


LINES = [(1 + i // 2, ("Kim", "Lou")[i % 2], f"k{i % 5} is {i}") for i in range(40)]


def held(memory):
    return [item["memory"] for item in memory.get_all(user_id="a", top_k=99)["results"]]


def test_a_chat_is_imported_with_its_times(memory, tmp_path):
    (path := tmp_path / "chat.txt").write_text(chat(*LINES))
    counts = import_chats(memory, path, user_id="a")
    assert counts == {"chats": 1, "messages": 40, "before": 0, "ADD": 10, "UPDATE": 30}
    assert len(held(memory)) == 10  # five things of each
    (first,) = memory.get_all(user_id="a", as_of="2023-05-01", filters={"speaker": "Kim"})[
        "results"
    ]
    assert (
        first["memory"] == "k0 is 0" and first["event_time"] == "2023-05-01T13:56:00.000000+00:00"
    )


def test_what_was_imported_before_is_passed_over(memory, tmp_path, monkeypatch):
    (path := tmp_path / "chat.txt").write_text(chat(*LINES))
    add, calls = memory.add, []

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return add(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(memory, "add", stop)
        import_chats(memory, path, user_id="a")
    assert import_chats(memory, path, user_id="a")["before"] == 16
    whole = held(memory)
    path.write_text(chat(*LINES, (25, "Kim", "k0 is 0"), (25, "Kim", "pet is Rex")))
    later = import_chats(memory, path, user_id="a")
    assert (later["before"], later["ADD"], later["UPDATE"]) == (40, 1, 1)
    assert len(held(memory)) == len(whole) + 1
    assert import_chats(memory, path, user_id="b")["before"] == 0


def test_messages_without_times_are_known_by_their_text(memory, tmp_path):
    said = [{"role": "user", "content": "city is Oslo"}] * 2
    (path := tmp_path / "said.json").write_text(json.dumps(said[:1]))
    assert import_chats(memory, path, user_id="a", infer=False)["ADD"] == 1
    path.write_text(json.dumps(said))
    assert import_chats(memory, path, user_id="a", infer=False)["before"] == 1
    assert import_chats(memory, path, user_id="a", infer=False)["before"] == 2


def test_the_oldest_chat_comes_first(memory, tmp_path):
    chats = [
        {"messages": [{"role": "user", "content": f"city is {city}", "timestamp": time}]}
        for city, time in (("Rome", "2024-01-01"), ("Oslo", "2023-01-01"))
    ]
    (path := tmp_path / "chats.json").write_text(json.dumps(chats))
    import_chats(memory, path, user_id="a")
    assert held(memory) == ["city is Rome"]


def test_own_dialogues_are_imported_too(memory, tmp_path):
    turns = [{"speaker": "Kim", "text": "city is Oslo"}, {"speaker": "Lou", "text": "pet is Rex"}]
    record = {"sessions": [{"time": "9:05 am on 1 June, 2023", "turns": turns}]}
    (path := tmp_path / "own.jsonl").write_text(json.dumps(record))
    import_chats(memory, path, user_id="a")
    found = memory.get_all(user_id="a")["results"]
    assert {(item["actor_id"], item["event_time"][:16]) for item in found} == {
        ("Kim", "2023-06-01T09:05"),
        ("Lou", "2023-06-01T09:05"),
    }


def test_other_files_and_nobody_are_refused(memory, tmp_path):
    (path := tmp_path / "x.json").write_text('{"dialog": []}')
    with pytest.raises(UserError, match="WhatsApp.*own dialogues"):
        import_chats(memory, path, user_id="a")
    with pytest.raises(UserError, match="user_id"):
        import_chats(memory, path)
