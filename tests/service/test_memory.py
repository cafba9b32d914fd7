"""`Memory`: mem0's calls and replies, and what is added to them."""

import asyncio
import contextlib
import random
import socket
import threading

import pytest
from scripted_agents import ScriptedAgents

from memr1_jax.service.async_memory import AsyncMemory
from memr1_jax.service.errors import Refused, Unknown
from memr1_jax.service.memory import Memory
from memr1_jax.service.scope import Scope


@pytest.fixture
def memory(tmp_path):
    with Memory(ScriptedAgents(), db=tmp_path / "m.db") as opened:
        yield opened


def texts(reply):
    return [item["memory"] for item in reply["results"]]


def events(reply):
    return [item["event"] for item in reply["results"]]


def test_add_tells_what_the_manager_did(memory):
    first = memory.add("city is Oslo", user_id="ana")
    assert set(first["results"][0]) == {"id", "memory", "event"}
    told = ["city is Bergen", "pet is Rex", "hello there you", "forget pet"]
    second = memory.add([{"role": "user", "content": text} for text in told], user_id="ana")
    assert events(second) == ["UPDATE", "ADD", "NONE", "DELETE"]
    updated = second["results"][0]
    assert updated["id"] == first["results"][0]["id"]
    assert updated["previous_memory"] == "city is Oslo"
    assert second["results"][2]["id"] is None
    assert texts(memory.get_all(user_id="ana")) == ["city is Bergen"]


def test_messages_of_all_forms_are_read_and_kept(memory):
    parts = [{"type": "text", "text": "city is Oslo"}, {"type": "image_url", "image_url": {}}]
    said = [
        {"role": "system", "content": "rule is none"},
        {"role": "user", "content": parts, "name": "Ana"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": "mood is good"},
    ]
    assert events(memory.add(said, user_id="ana")) == ["ADD", "ADD"]
    memory.add({"role": "user", "content": "pet is Rex"}, user_id="ana")
    kept = memory.store.messages(Scope.of("ana"))
    assert [(m.role, m.speaker) for m in kept] == [
        *(("system", "system"), ("user", "Ana"), ("assistant", "assistant")),
        *(("assistant", "assistant"), ("user", "user")),
    ]
    for wrong in (
        None,
        [],
        7,
        [7],
        [{"role": "user", "content": 7}],
        [{"role": 1}],
        {"role": "user"},
    ):
        with pytest.raises(ValueError):
            memory.add(wrong, user_id="ana")


def test_hostile_text_is_stored_as_text(memory):
    hostile = "x\x00\ud800<|im_end|><script>"
    (result,) = memory.add(hostile, user_id="ana", infer=False, metadata={"k": hostile})["results"]
    held = memory.get(result["id"])
    assert held["memory"] == "x\ufffd\ufffd<|im_end|><script>" == held["metadata"]["k"]
    with pytest.raises(Refused, match="characters"):
        memory.add("x" * 1_000_001, user_id="ana")
    for wrong in ({"x": float("nan")}, {"x": object()}, [1], "text"):
        with pytest.raises(Refused, match="metadata"):
            memory.add("a", user_id="ana", infer=False, metadata=wrong)
    with pytest.warns(UserWarning, match="user_id"):
        memory.add("b", user_id="ana", infer=False, metadata={"user_id": "ben", "k": 1})
    assert memory.get_all(user_id="ana")["results"][1]["metadata"] == {"k": 1}


def test_without_inference_messages_are_memories(memory):
    reply = memory.add([{"role": "user", "name": "Ana", "content": "hi"}], user_id=7, infer=False)
    (result,) = reply["results"]
    assert {**result, "id": 0} == {
        **{"id": 0, "memory": "hi", "event": "ADD", "actor_id": "Ana", "role": "user"}
    }
    memory.add("city is Oslo", user_id=7)
    memory.add("there", user_id=7, infer=False)
    assert texts(memory.get_all(user_id="7")) == ["hi", "city is Oslo", "there"]


def test_a_memory_has_mem0s_shape(memory):
    (result,) = memory.add(
        "city is Oslo",
        user_id="ana",
        run_id="r",
        metadata={"mood": "good"},
        timestamp=1_700_000_000,
        expiration_date="2999-01-01",
    )["results"]
    held = memory.get(result["id"])
    assert set(held) == {
        *("id", "memory", "hash", "metadata", "created_at", "updated_at", "event_time"),
        *("user_id", "run_id", "actor_id", "role", "expiration_date"),
    }
    assert held["event_time"] == "2023-11-14T22:13:20.000000+00:00" < held["created_at"]
    (found,) = memory.search("city", filters={"user_id": "ana"})["results"]
    assert {**held, "score": found["score"]} == found and found["score"] > 0
    assert memory.get("none") is None


def test_both_styles_of_reading_and_the_filters(memory):
    for place, mood in enumerate(("good", "bad", "calm")):
        memory.add(
            f"k{place} is word", user_id="ana", run_id="r", metadata={"mood": mood, "n": place}
        )
    assert len(texts(memory.search("word", user_id="ana", limit=2))) == 2
    assert len(texts(memory.search("word", filters={"user_id": "ana"}, top_k=1))) == 1
    assert memory.search("absent", filters={"user_id": "ana"})["results"] == []
    assert len(memory.search("word", user_id="ana", threshold=0.9)["results"]) == 0

    def found(**conditions):
        return [t[1] for t in texts(memory.get_all(filters={"user_id": "ana", **conditions}))]

    assert found(mood="bad") == ["1"]
    assert found(mood=["bad", "calm"]) == ["1", "2"]
    assert found(mood={"ne": "bad"}) == ["0", "2"]
    assert found(mood={"nin": ["bad"]}, n={"gt": 0}) == ["2"]
    assert found(n={"gte": 1, "lt": 2}) == ["1"]
    assert found(n={"lte": "text"}) == []
    assert found(mood={"contains": "o"}) == ["0"] and found(mood={"icontains": "CAL"}) == ["2"]
    assert found(other="*") == [] and found(mood="*") == ["0", "1", "2"]
    assert found(OR=[{"mood": "bad"}, {"n": 2}]) == ["1", "2"]
    assert found(NOT=[{"mood": "bad"}]) == ["0", "2"]
    assert found(AND=[{"mood": "bad"}, {"n": 2}]) == []
    assert found(created_at={"gt": "2000-01-01"}) == ["0", "1", "2"]
    assert found(metadata={"n": 0}) == ["0"]
    assert len(texts(memory.get_all(filters={"AND": [{"user_id": "ana"}, {"run_id": "r"}]}))) == 3
    assert found(run_id="q") == [] and found(run_id="*") == ["0", "1", "2"]


@pytest.mark.parametrize(
    "filters",
    [
        *(
            None,
            {},
            {"mood": "bad"},
            {"user_id": "*"},
            {"user_id": {"ne": "ben"}},
            {"user_id": None},
        ),
        *([], {"user_id": "a b"}, {"OR": [{"user_id": "ana"}]}, {"user_id": "ana", "OR": 7}),
        *({"user_id": "ana", "x": {"like": 1}}, {"AND": [{"user_id": "a"}, {"user_id": "b"}]}),
        *({"user_id": "ana", "created_at": {"gt": "soon"}}, {"user_id": "ana", "x": {"in": 1}}),
    ],
)
def test_filters_that_name_nobody_or_are_none_are_refused(memory, filters):
    with pytest.raises(ValueError):
        memory.get_all(filters=filters)
    with pytest.raises(ValueError):
        memory.search("x", filters=filters)


def test_update_and_delete(memory):
    (result,) = memory.add("city is Oslo", user_id="ana", metadata={"a": 1})["results"]
    done = memory.update(result["id"], data="city is Rome", metadata={"b": 2})
    assert done == {"message": "Memory updated successfully!"}
    memory.update(result["id"], expiration_date="2000-01-01", timestamp="2026-05-08")
    held = memory.get(result["id"])
    assert (held["memory"], held["metadata"]) == ("city is Rome", {"a": 1, "b": 2})
    assert held["event_time"].startswith("2026-05-08")
    assert memory.get_all(user_id="ana")["results"] == []  # expired
    assert len(memory.get_all(user_id="ana", show_expired=True)["results"]) == 1
    assert len(memory.search("Rome", user_id="ana", reference_date="1999-12-31")["results"]) == 1
    assert memory.delete(result["id"]) == {"message": "Memory deleted successfully!"}
    for call in (memory.delete, memory.history, lambda name: memory.update(name, "x")):
        with pytest.raises(Unknown):
            call("none")
    with pytest.raises(Unknown, match="deleted"):
        memory.delete(result["id"])
    lines = memory.history(result["id"])
    assert [line["event"] for line in lines] == ["ADD", "UPDATE", "UPDATE", "DELETE"]
    assert (lines[1]["old_memory"], lines[1]["new_memory"]) == ("city is Oslo", "city is Rome")
    assert lines[-1]["is_deleted"] and lines[-1]["new_memory"] is None
    for wrong in ({}, {"text": " "}, {"text": 7}, {"expiration_date": "soon"}):
        with pytest.raises(Refused):
            memory.update(result["id"], **wrong)


def test_delete_all_and_reset(memory):
    memory.add("city is Oslo", user_id="ana", run_id="1")
    memory.add("city is Oslo", user_id="ana", run_id="2")
    memory.add("city is Oslo", user_id="ben")
    with pytest.raises(ValueError):
        memory.delete_all()
    memory.delete_all(user_id="ana")
    assert memory.search("city", user_id="ana")["results"] == []
    assert len(memory.search("city", user_id="ben")["results"]) == 1
    memory.reset()
    assert memory.search("city", user_id="ben")["results"] == []
    assert memory.stats()["memories"] == memory.stats()["events"] == 0


def test_undo_of_a_call_brings_the_bank_back(memory):
    memory.add("city is Oslo", user_id="ana")
    call = memory.add(
        [{"role": "user", "content": t} for t in ("city is Rome", "pet is Rex", "forget city")],
        user_id="ana",
    )["call"]
    assert texts(memory.get_all(user_id="ana")) == ["pet is Rex"]
    undone = memory.undo(call=call)["results"]
    assert {item["event"] for item in undone} == {"UNDO"} and len(undone) == 3
    assert texts(memory.get_all(user_id="ana")) == ["city is Oslo"]
    assert events(memory.add("city is Paris", user_id="ana")) == ["UPDATE"]
    (held,) = memory.get_all(user_id="ana")["results"]
    memory.undo(held["id"])
    last = memory.history(held["id"])[-1]
    assert (last["event"], last["new_memory"]) == ("UNDO", "city is Oslo")
    memory.undo(event_id=last["id"])
    assert texts(memory.search("city Paris", user_id="ana")) == ["city is Paris"]
    for wrong in (
        {},
        {"event_id": "x"},
        {"event_id": 999},
        {"call": "none"},
        {"memory_id": "none"},
    ):
        with pytest.raises(Refused):
            memory.undo(**wrong)


def test_a_memory_that_comes_back_gets_a_slot_of_its_own(memory):
    (first,) = memory.add("city is Oslo", user_id="ana")["results"]
    memory.add("forget city", user_id="ana")
    memory.add("pet is Rex", user_id="ana")  # takes the slot
    memory.undo(first["id"])
    assert events(memory.add("pet is Max", user_id="ana")) == ["UPDATE"]
    assert events(memory.add("city is Rome", user_id="ana")) == ["UPDATE"]
    assert sorted(texts(memory.get_all(user_id="ana"))) == ["city is Rome", "pet is Max"]


def test_the_past_is_read_by_either_time(memory):
    memory.add("city is Oslo", user_id="ana", timestamp="2026-05-08")
    (held,) = memory.get_all(user_id="ana")["results"]
    memory.add("city is Rome", user_id="ana", timestamp="2026-06-01T12:00:00+00:00")
    for read in (memory.get_all, lambda **k: memory.search("city", **k)):
        assert texts(read(user_id="ana", as_of="2026-05-31")) == ["city is Oslo"]
        assert texts(read(user_id="ana", as_of="2026-06-01")) == ["city is Rome"]  # the whole day
        assert texts(read(user_id="ana", as_of="2026-05-07")) == []
        assert texts(read(user_id="ana", as_of_written=held["updated_at"])) == ["city is Oslo"]
    assert memory.answer("city?", user_id="ana", as_of="2026-05-09")["answer"] == "city is Oslo"
    assert memory.answer("city?", user_id="ana")["answer"] == "city is Rome"
    changed = memory.diff("2026-05-09", "2026-06-02", by="event", user_id="ana")
    assert [u["previous_memory"] for u in changed["updated"]] == ["city is Oslo"]
    assert changed["added"] == changed["deleted"] == []
    assert len(memory.diff("2000-01-01", user_id="ana")["added"]) == 1
    with pytest.raises(Refused, match="as_of"):
        memory.get_all(user_id="ana", as_of="yesterday")


def test_answer_shows_what_it_used(memory):
    for place in range(6):
        memory.add(f"key{place} is {place}", user_id="ana")
    reply = memory.answer("key3", user_id="ana", explain=True)
    assert reply["answer"] == "key3 is 3" and texts({"results": reply["memories"]}) == ["key3 is 3"]
    assert len(reply["results"]) == 4  # as many as the agents are shown
    assert reply["explain"]["prompt"] == "prompt key3"
    assert len(memory.answer("key3", filters={"user_id": "ana"}, top_k=1)["results"]) == 1
    assert memory.answer("key3", user_id="nobody")["results"] == []
    assert memory.answer("key3", user_id="ana", top_k=0)["results"] == []


def test_explain_tells_what_the_manager_saw_and_wrote(memory):
    (result,) = memory.add("city is Oslo", user_id="ana", explain=True)["results"]
    assert result["explain"]["prompt"] == "prompt city is Oslo"
    assert result["explain"]["output"] == "output"


def test_unreadable_output_is_kept_and_tried_again(memory):
    reply = memory.add("garbled is this", user_id="ana")
    assert events(reply) == ["FAILED"]
    assert events(memory.retry(user_id="ana")) == ["FAILED"]  # still broken
    memory.agents.broken = False
    assert events(memory.retry(user_id="ana")) == ["ADD"]
    assert memory.retry(user_id="ana")["results"] == []
    assert texts(memory.get_all(user_id="ana")) == ["garbled is this"]
    assert len(memory.store.messages(Scope.of("ana"))) == 1
    memory.undo(call=reply["call"])
    assert texts(memory.get_all(user_id="ana")) == []


def test_nothing_crosses_from_one_scope_to_another(memory):
    memory.add("city is Oslo", user_id="ana", agent_id="x")
    memory.add("city is Rome", user_id="ben", agent_id="x")
    memory.add("city is Bonn", user_id="ana")
    assert texts(memory.search("city", user_id="ben")) == ["city is Rome"]
    assert sorted(texts(memory.search("city", user_id="ana"))) == ["city is Bonn", "city is Oslo"]
    assert len(memory.search("city", agent_id="x")["results"]) == 2
    assert memory.answer("city", user_id="ben")["answer"] == "city is Rome"


def test_calls_of_many_threads_are_worked_through_together(memory):
    memory.agents.gate = threading.Event()
    threads = [
        threading.Thread(target=memory.add, args=(f"k{i} is {i}",), kwargs={"user_id": f"u{i % 8}"})
        for i in range(24)
    ]
    for thread in threads:
        thread.start()
    memory.agents.gate.set()
    for thread in threads:
        thread.join()
    assert sum(memory.agents.batches) == 24 and max(memory.agents.batches) > 1
    assert len(memory.agents.batches) < 24
    assert memory.stats()["memories"] == 24


def test_a_call_that_fails_harms_no_other(memory):
    memory.agents.gate = threading.Event()
    failures = []

    def crash():
        with pytest.raises(RuntimeError, match="crash"):
            memory.add("crash", user_id="ben")
        failures.append(1)

    threads = [threading.Thread(target=crash) for _ in range(2)]
    threads += [
        threading.Thread(target=memory.add, args=("k is v",), kwargs={"user_id": f"u{i}"})
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    memory.agents.gate.set()
    for thread in threads:
        thread.join()
    assert len(failures) == 2 and memory.stats()["memories"] == 3


def test_two_processes_share_a_file(tmp_path):
    with (
        Memory(ScriptedAgents(), db=tmp_path / "m.db") as one,
        Memory(ScriptedAgents(), db=tmp_path / "m.db") as two,
    ):
        one.add("city is Oslo", user_id="ana")
        assert texts(two.search("city", user_id="ana")) == ["city is Oslo"]
        assert events(two.add("city is Rome", user_id="ana")) == ["UPDATE"]
        assert texts(one.search("city", user_id="ana")) == ["city is Rome"]
        two.reset()
        one.add("pet is Rex", user_id="ana")
        assert texts(one.search("city pet", user_id="ana")) == ["pet is Rex"]


def test_late_writers_read_again(tmp_path):
    with (
        Memory(ScriptedAgents(), db=tmp_path / "m.db") as one,
        Memory(ScriptedAgents(), db=tmp_path / "m.db") as two,
    ):
        one.agents.gate = threading.Event()
        thread = threading.Thread(target=one.add, args=("city is Oslo",), kwargs={"user_id": "a"})
        thread.start()
        while not one.agents.batches:  # has read the bank
            pass
        two.add("city is Rome", user_id="a")
        one.agents.gate.set()
        thread.join()
        (held,) = one.get_all(user_id="a")["results"]
        assert held["memory"] == "city is Oslo"
        assert [line["event"] for line in one.history(held["id"])] == ["ADD", "UPDATE"]


def test_a_bank_grows_beyond_its_first_capacity(memory):
    for place in range(20):
        memory.add(f"key{place} is {place}", user_id="ana")
    assert events(memory.add("key7 is new", user_id="ana")) == ["UPDATE"]
    assert len(memory.get_all(user_id="ana", top_k=100)["results"]) == 20


def test_what_is_not_supported_is_said(memory):
    with pytest.raises(Refused, match="prompt"):
        memory.add("x", user_id="ana", prompt="p")
    with pytest.raises(Refused, match="argument"):
        memory.get_all(user="ana")
    for wrong in ({"top_k": -1}, {"top_k": True}, {"threshold": "x"}, {"reference_date": "x"}):
        with pytest.raises(Refused, match=next(iter(wrong))):
            memory.search("x", user_id="ana", **wrong)
    with pytest.raises(Refused):
        memory.search(" ", user_id="ana")
    with pytest.raises(NotImplementedError):
        memory.chat("x")


def test_all_methods_are_there_as_coroutines(tmp_path):
    async def use():
        async with AsyncMemory(ScriptedAgents(), db=tmp_path / "m.db") as memory:
            calls = [memory.add(f"k{i} is {i}", user_id=f"u{i}") for i in range(4)]
            assert [events(reply) for reply in await asyncio.gather(*calls)] == [["ADD"]] * 4
            assert texts(await memory.search("k1", user_id="u1")) == ["k1 is 1"]
            with pytest.raises(AttributeError):
                memory.none()

    asyncio.run(use())
    public = {name for name in vars(Memory) | vars(Memory.__base__) if not name.startswith("_")}
    for name in public - {"agents", "searched_by", "from_config"}:
        assert callable(getattr(AsyncMemory.from_config({"db": tmp_path / "m.db"}), name))


def test_texts_of_all_languages_stay_as_they_are(memory):
    for text in ("我住在奥斯陆。", "أعيش في أوسلو", "Я живу в Осло", "👩‍🚀 naïve"):
        (result,) = memory.add(text, user_id="ana", infer=False)["results"]
        assert memory.get(result["id"])["memory"] == text


def test_nothing_is_sent_anywhere(memory, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("somebody opens a connection")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    (result,) = memory.add("city is Oslo", user_id="ana")["results"]
    assert memory.search("city", user_id="ana")["results"]
    assert memory.answer("city?", user_id="ana")["answer"] == "city is Oslo"
    memory.update(result["id"], "city is Rome")
    memory.undo(result["id"])


def test_what_is_said_again_is_left_alone(memory):
    for event in ("ADD", "NONE"):
        (result,) = memory.add("city is Oslo", user_id="ana")["results"]
        assert result["event"] == event
    assert len(memory.get_all(user_id="ana")["results"]) == 1


def test_word_statistics_may_be_those_of_the_store(tmp_path):
    said = [*["ana ana"] * 20, "kiln in the shed by the lake"]
    for fit_words, best in ((False, "ana ana"), (True, said[-1])):
        with Memory(ScriptedAgents(), db=tmp_path / "m.db", fit_words=fit_words) as memory:
            if not fit_words:
                memory.add(said[:11], user_id="u", infer=False)
                memory.search("ana", user_id="u")
                memory.add(said[11:], user_id="u", infer=False)
            found = memory.search("ana kiln", user_id="u")["results"]
            assert found[0]["memory"] == best and len(found) == 20
            past = memory.search("ana kiln", user_id="u", as_of="2999-01-01")["results"]
            assert past[0]["memory"] == best
            assert past[0]["score"] == pytest.approx(found[0]["score"], abs=1e-6)
            assert memory.search("unheard", user_id="u")["results"] == []


@pytest.mark.parametrize("calls", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_calls_stay_with_their_user(memory, calls):
    chance, known = random.Random(0), {"ana": [], "ben": []}
    for _ in range(calls):
        user, thing = chance.choice(["ana", "ben"]), chance.choice(["city", "pet", "job"])
        whose = {"user_id": user}
        what = chance.choice(["add", "add", "update", "delete", "undo", "list", "search", "answer"])
        replies = []
        if what == "add":
            text = f"{thing} is {user}{chance.randrange(99)}"
            replies = memory.add(text, **whose)["results"]
            known[user] += [one["id"] for one in replies if one["event"] == "ADD"]
        elif what in ("update", "delete", "undo"):
            with contextlib.suppress(Refused):  # there may be nothing to change
                one = chance.choice(known[user] or ["none"])
                more = (f"{thing} is {user}",) if what == "update" else ()
                getattr(memory, what)(one, *more)
        elif what == "list":
            replies = memory.get_all(**whose, top_k=1000)["results"]
        elif what == "search":
            replies = memory.search(thing, **whose)["results"]
        else:
            replies = memory.answer(f"{thing}?", **whose)["results"]
        for one in replies:
            assert user in one["memory"] and one.get("user_id", user) == user
            assert one["id"] is None or one["id"] in known[user]
