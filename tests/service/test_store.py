"""The memory database: transactions, scopes, undo, replays of the past."""

import itertools
import multiprocessing
import sqlite3

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from memr1_jax.errors import UserError
from memr1_jax.service.records import Entry, Here, Kind, Message, Outdated, new_state
from memr1_jax.service.scope import Scope
from memr1_jax.service.store import Store
from memr1_jax.service.undo import undo

ANA, BEN = Scope.of("ana"), Scope.of("ben")
MAY = "2026-05-08T00:00:00.000000+00:00"


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "memory.db")
    yield opened
    opened.close()


def added(memory, text, event_time=MAY, **more):
    state = new_state(text, "Ana", event_time=event_time, **more)
    return Entry(Kind.ADD, memory, None, state, event_time)


def bare(states):
    return {
        key: {k: v for k, v in state.items() if not k.endswith("_id") or k == "actor_id"}
        for key, state in states.items()
    }


def change(store, scope, memory, text, event_time=MAY):
    before = bare(store.memories(scope))[memory]
    after = None if text is None else before | {"text": text, "event_time": event_time}
    kind = Kind.DELETE if text is None else Kind.UPDATE
    return store.write(scope, [Entry(kind, memory, before, after, event_time)])


def texts(states):
    return {key: state["text"] for key, state in states.items()}


def test_what_was_written_is_read_back_with_its_messages(store):
    said = [Message("user", "Ana", "I live in Oslo.", MAY)]
    (event,) = store.write(
        ANA, [added("m1", "Ana lives in Oslo.", sources=[Here(0)])], call="c1", messages=said
    )
    state = store.memories(ANA)["m1"]
    assert (state["text"], state["user_id"], state["agent_id"]) == ("Ana lives in Oslo.", "ana", "")
    (message,) = store.messages(ANA, ids=state["sources"])
    assert (message.content, message.call) == ("I live in Oslo.", "c1")
    assert [e.id for e in store.events(ANA, call="c1")] == [event]
    assert store.scope_of(memory="m1") == ANA and store.versions(ANA) == {ANA: 1}


def test_a_write_fails_whole(store):
    store.write(ANA, [added("m1", "one")])
    wrong = Entry(Kind.UPDATE, "m1", new_state("never", "Ana", event_time=MAY), None, MAY)
    with pytest.raises(Outdated):
        store.write(ANA, [added("m2", "two"), wrong], messages=[Message("user", "Ana", "x", MAY)])
    assert texts(store.memories(ANA)) == {"m1": "one"}
    assert len(store.messages(ANA)) == 0 and store.versions(ANA) == {ANA: 1}


def test_a_late_writer_is_told(store):
    version = store.snapshot(ANA, "").version
    store.write(ANA, [added("m1", "one")], version=version)
    with pytest.raises(Outdated):
        store.write(ANA, [added("m2", "two")], version=version)


def test_late_vectors_are_passed_over(store):
    store.write(ANA, [added("m1", "one"), added("m2", "two")])
    store.set_vectors(ANA, "e", {"m1": b"1234"}, 1)
    change(store, ANA, "m2", "three")
    store.set_vectors(ANA, "e", {"m2": b"5678"}, 1)  # of the text as it was
    store.set_vectors(BEN, "e", {"m2": b"5678"}, 0)
    assert store.snapshot(ANA, "e").vectors == {"m1": b"1234"}


def test_undo_of_a_memory_goes_back_step_by_step(store):
    store.write(ANA, [added("m1", "Oslo")])
    change(store, ANA, "m1", "Bergen")
    change(store, ANA, "m1", None)
    for expected in ({"m1": "Bergen"}, {"m1": "Oslo"}, {}):
        (undone,) = undo(store, ANA, memory="m1")
        assert texts(store.memories(ANA)) == expected
    with pytest.raises(UserError, match="nothing to undo"):
        undo(store, ANA, memory="m1")
    undo(store, ANA, event=undone)  # an undoing is undone as well
    assert texts(store.memories(ANA)) == {"m1": "Oslo"}
    assert len(store.events(ANA)) == 7  # nothing is forgotten


def test_undo_of_a_call_takes_all_of_it_back_but_not_what_came_later(store):
    store.write(ANA, [added("m1", "one"), added("m2", "two")], call="c")
    undo(store, ANA, call="c")
    assert store.memories(ANA) == {}
    store.write(ANA, [added("m3", "three")], call="d")
    change(store, ANA, "m3", "changed")
    with pytest.raises(UserError, match="later event"):
        undo(store, ANA, call="d")
    assert texts(store.memories(ANA)) == {"m3": "changed"}


def test_the_past_is_there_by_either_time(store):
    store.write(ANA, [added("m1", "Oslo", MAY)])
    june = "2026-06-01T00:00:00.000000+00:00"
    change(store, ANA, "m1", "Bergen", june)
    first, second = (event.created_at for event in store.events(ANA))
    assert texts(store.as_of(ANA, written_by=first)) == {"m1": "Oslo"}
    assert texts(store.as_of(ANA, happened_by=MAY)) == {"m1": "Oslo"}
    assert texts(store.as_of(ANA, happened_by=june)) == {"m1": "Bergen"}
    assert store.as_of(ANA, written_by="2000") == {}
    assert store.as_of(ANA) == store.memories(ANA)


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "update", "delete"]), st.integers(0, 3), st.text(max_size=5)),
    max_size=8,
)


COUNT = itertools.count()


def run(store, scope, steps):
    """Plays steps, those that make sense, and returns the states after each."""
    seen = [bare(store.memories(scope))]
    for what, place, text in steps:
        held = list(store.memories(scope))
        if what == "add":
            store.write(scope, [added(f"{scope.user_id}{next(COUNT)}", text)])
        elif place < len(held):
            change(store, scope, held[place], text + "!" if what == "update" else None)
        else:
            continue
        seen.append(bare(store.memories(scope)))
    return seen


@settings(max_examples=10)
@given(STEPS, st.integers(0, 8))
def test_undoing_the_last_events_gives_the_memories_as_they_were(tmp_path_factory, steps, back):
    store = Store(tmp_path_factory.mktemp("undo") / "m.db")
    seen = run(store, ANA, steps)
    events = store.events(ANA)
    assert bare(store.as_of(ANA)) == seen[-1]
    for place, event in enumerate(events):
        assert bare(store.as_of(ANA, written_by=event.created_at)) == seen[place + 1]
    for event in reversed(events[max(0, len(events) - back) :]):
        undo(store, ANA, event=event.id)
    assert bare(store.memories(ANA)) == seen[max(0, len(events) - back)]
    store.close()


@settings(max_examples=6)
@given(st.lists(st.tuples(st.booleans(), STEPS), max_size=4))
def test_no_scope_sees_another(tmp_path_factory, rounds):
    store = Store(tmp_path_factory.mktemp("scopes") / "m.db")
    for number, (first, steps) in enumerate(rounds):
        name = f"{'ana' if first else 'ben'}"
        run(store, Scope.of(name, run_id=number), steps)
        for own, other in ((ANA, "ben"), (BEN, "ana")):
            assert all(key.startswith(own.user_id) for key in store.memories(own))
            assert all(event.user_id == own.user_id for event in store.events(own))
            assert all(key.startswith(own.user_id) for key in store.as_of(own))
            assert all(key.startswith(own.user_id) for key in store.snapshot(own, "e").states)
            for key in store.memories(Scope.of(other)):
                with pytest.raises(UserError, match="nothing to undo"):
                    undo(store, own, memory=key)
    store.close()


def test_a_scope_needs_an_id_without_white_space():
    assert Scope.of(user_id=7, run_id=" r ") == Scope("7", "", "r")
    for wrong in ({}, {"user_id": "a b"}, {"agent_id": "  "}, {"run_id": "a\x00"}):
        with pytest.raises(UserError):
            Scope.of(**wrong)


def _writer(path, name, count):
    store = Store(path)
    for index in range(count):
        store.write(Scope.of("all"), [added(f"{name}-{index}", "x")])
    store.close()


def test_several_processes_lose_nothing(tmp_path):
    path = tmp_path / "m.db"
    Store(path).close()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_writer, args=(path, name, 20)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = Store(path)
    assert (
        len(store.memories(Scope.of("all"))) == 60
        and store.snapshot(Scope.of("all"), "").version == 60
    )
    store.close()


def test_other_files_and_later_versions_are_refused(tmp_path):
    (tmp_path / "text.db").write_text("This is no database, however long it may be. " * 50)
    with pytest.raises(UserError, match="cannot be opened"):
        Store(tmp_path / "text.db")
    (tmp_path / "file").write_text("x")
    for place in ("none://x", tmp_path, tmp_path / "file" / "m.db", "://"):
        with pytest.raises(UserError, match="cannot be opened"):
            Store(place)
    with pytest.raises(UserError, match="unknown user"):
        Store("~no such user/m.db")
    with pytest.raises(UserError) as told:
        Store("postgresql://ana:secret@/none?host=/none")
    assert "secret" not in str(told.value)
    Store(tmp_path / "m.db").close()
    with sqlite3.connect(tmp_path / "m.db") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(UserError, match="schema 99"):
        Store(tmp_path / "m.db")


def test_a_commit_is_on_the_disk(store):
    with store._engine.connect() as connection:
        modes = [
            connection.exec_driver_sql(f"PRAGMA {m}").scalar()
            for m in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert modes == ["wal", 2, 1]
    with pytest.raises(sa.exc.IntegrityError), store.writing() as connection:
        connection.exec_driver_sql("INSERT INTO memories (id, scope, state) VALUES ('x', 99, '{}')")
