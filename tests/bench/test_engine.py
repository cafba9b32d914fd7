"""The engine on the tiny model, against a plain loop over whole forward passes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from tiny_model import make_tiny
from whole_passes import greedy

from memr1_jax.agents.templates import render_chat
from memr1_jax.bench.engine import Engine, Limits
from memr1_jax.bench.reply_cache import ReplyCache, model_digest
from memr1_jax.bench.systems.protocol import Call, Reply
from memr1_jax.errors import UserError
from memr1_jax.parallel.mesh import make_mesh

ROOT = Path(__file__).parents[2]
FACTS = ["Ann has a dog.", "Ben likes tea and cake.", "Ann lives in Oslo by the sea.", "It rains."]
RULES = "You keep the memory of a dialogue. " * 6


def call(text, *, rules="", **changes):
    messages = ((("system", rules),) if rules else ()) + (("user", text),)
    return dataclasses.replace(Call("answer", messages, 6), **changes)


def make(**options):
    return Engine({"base": make_tiny().model}, **options)


def untimed(replies):
    return [dataclasses.replace(reply, seconds=0.0) for reply in replies]


@pytest.fixture(scope="module")
def alone():
    """Replies to calls that were made one by one."""
    engine = make(limits=Limits(rows=1))
    return [engine([call(fact, rules=RULES)])[0] for fact in FACTS]


def test_replies_are_the_greedy_continuation(alone):
    model = make_tiny().model
    for fact, reply in zip(FACTS[:2], alone, strict=False):
        text = render_chat("test", call(fact, rules=RULES).messages, model.tokenizer)
        tokens = greedy(model, text, 6)
        assert reply.text == model.tokenizer.decode(tokens, skip_special_tokens=True)
        assert reply.prompt_tokens == len(model.tokenizer.encode(text, add_special_tokens=False))
        assert reply.tokens == len(tokens) + reply.stopped
        assert reply.cut == 0


def test_a_batch_and_a_shared_prefix_change_nothing(alone):
    engine = make(limits=Limits(rows=4))
    calls = [call(fact, rules=RULES) for fact in FACTS]
    assert untimed(engine(calls)) == untimed(alone)
    assert [context.length for context in engine._prefixes.values()] == [64]
    backwards = engine([*calls[::-1], calls[0]])
    assert untimed(backwards) == untimed([*alone[::-1], alone[0]])


def test_an_instruction_that_comes_again_is_kept(alone):
    engine = make(limits=Limits(rows=1))
    prefixes = []
    for fact, reply in zip(FACTS, alone, strict=True):
        assert untimed(engine([call(fact, rules=RULES)])) == untimed([reply])
        prefixes.append([int(context.length) for context in engine._prefixes.values()])
    assert prefixes == [[], [64], [64], [64]]
    engine.forget()
    engine([call(FACTS[0], rules=RULES)])
    assert not engine._prefixes


def test_on_a_mesh_of_one_device_nothing_changes(alone):
    engine = make(mesh=make_mesh("data:1", [*jnp.zeros(1).devices()]))
    assert untimed(engine([call(fact, rules=RULES) for fact in FACTS])) == untimed(alone)


@pytest.mark.slow
def test_on_four_devices_nothing_changes():
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.bench.engine_worker"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 3
    assert all(found.values())


def test_models_go_by_their_names():
    tiny = make_tiny().model
    other = dataclasses.replace(tiny, params={**tiny.params, "head": tiny.params["embed"]})
    engine = Engine({"base": tiny, "answer": other})
    first, second = engine([call(FACTS[0]), call(FACTS[0], model="answer")])
    assert first.text != second.text
    with pytest.raises(UserError, match="'manager'.*only base, answer"):
        engine([call(FACTS[0], model="manager")])


def test_grammar_holds_the_reply_to_shown_ids():
    engine = make()
    calls = [call(fact, max_tokens=40, schema="compact", ids=n) for n, fact in enumerate(FACTS)]
    for shown, reply in enumerate(engine(calls)):
        assert reply.stopped
        operations = [json.loads(line) for line in reply.text.splitlines()]
        assert operations
        for operation in operations:
            assert operation["op"] in ("ADD", "UPDATE", "DELETE", "NONE")
            assert operation.get("id", -1) < shown
    (full,) = engine([call(FACTS[0], max_tokens=60, schema="full", ids=1)])
    for entry in json.loads(full.text)["memory"]:
        assert entry["event"] in ("ADD", "NONE") or entry["id"] == "0"
    with pytest.raises(UserError, match="too few for any response"):
        engine([call(FACTS[0], max_tokens=2, schema="compact")])


def test_a_long_prompt_loses_the_beginning_of_its_last_message():
    whole = "one two three four five six seven eight nine ten. " * 8 + FACTS[0]
    tokenizer = make_tiny().model.tokenizer
    frame = render_chat("test", call("@", rules=RULES).messages, tokenizer).split("@")
    head, tail = (len(tokenizer.encode(part, add_special_tokens=False)) for part in frame)
    engine = make(limits=Limits(prompt_length=head + tail + 20))
    (reply,) = engine([call(whole, rules=RULES)])
    words = tokenizer.encode(whole, add_special_tokens=False)
    assert reply.cut == len(words) - 20
    assert reply.prompt_tokens == head + tail + 20
    (short,) = make()([call(tokenizer.decode(words[-20:]).strip(), rules=RULES)])
    assert abs(short.prompt_tokens - reply.prompt_tokens) <= 1
    with pytest.raises(UserError, match="leaves no room"):
        engine([call(whole, max_tokens=4096)])


def test_what_was_answered_is_not_computed_again(tmp_path, alone):
    calls = [call(fact, rules=RULES) for fact in FACTS]
    cache = ReplyCache(tmp_path / "replies.sqlite")
    engine = make(cache=cache, limits=Limits(rows=2))
    stored = []

    class Killed(Exception):
        pass

    def die(done, total):
        stored.append((done, total))
        raise Killed

    engine.on_batch = die
    with pytest.raises(Killed):
        engine(calls)
    assert stored == [(2, 4)]
    cache.close()

    reopened = ReplyCache(tmp_path / "replies.sqlite")
    progress = []
    again = make(
        cache=reopened, limits=Limits(rows=2), on_batch=lambda *done: progress.append(done)
    )
    first = again(calls)
    assert progress == [(4, 4)]
    assert untimed(first) == untimed(alone)
    assert again(calls) == first  # with the seconds of the time when it was computed
    assert len(progress) == 1
    other = again([call(FACTS[0], rules=RULES, max_tokens=5)])
    assert len(progress) == 2
    assert other[0].tokens <= 5


def test_a_cache_that_is_none_is_refused(tmp_path):
    (tmp_path / "notes.sqlite").write_text("These are notes. " * 100)
    with pytest.raises(UserError, match="no cache of replies"):
        ReplyCache(tmp_path / "notes.sqlite")


def test_a_cache_that_is_damaged_or_has_no_room_says_so(tmp_path):
    path = tmp_path / "replies.sqlite"
    reply = Reply("text " * 100, 3, 4, True, 0.5, 0)
    cache = ReplyCache(path)
    cache.put({f"key{number}": reply for number in range(200)})
    cache._connection.execute("PRAGMA max_page_count=1")  # as a full disk
    with pytest.raises(UserError, match=f"{path} could not be written .*full.*Make room"):
        cache.put({f"more{number}": reply for number in range(200)})
    assert cache.get(["key7", "more7"]) == {"key7": reply}
    cache.close()
    content = path.read_bytes()
    for place in range(4096, len(content), 4096):  # a page's kind and order
        path.write_bytes(content[:place] + b"\xff" * 16 + content[place + 16 :])
        with pytest.raises(UserError, match=f"{path} is no cache of replies .*Move it away"):
            ReplyCache(path)


def test_the_digest_is_of_weights_and_number_format(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    first = model_digest(tmp_path, "float32")
    assert first == model_digest(tmp_path, "float32")
    assert first != model_digest(tmp_path, "bfloat16")
    (tmp_path / "model.safetensors").write_bytes(b"abd")
    assert first != model_digest(tmp_path, "float32")
