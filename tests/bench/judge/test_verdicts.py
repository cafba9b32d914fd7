"""Replies of a judge and what is read from them; the file that keeps verdicts."""

import dataclasses
import json
import threading

import pytest

from memr1_jax.bench.judge.judge_prompts import judge_prompt
from memr1_jax.bench.judge.verdicts import (
    RIGHT,
    UNREADABLE,
    WRONG,
    Verdict,
    append_verdicts,
    read_reply,
    read_verdicts,
    verdict_key,
)
from memr1_jax.errors import UserError

JSON, WORD = judge_prompt("locomo"), judge_prompt("longmemeval_default")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"reason": "Same date.", "label": "CORRECT"}', RIGHT),
        ('{"label": "wrong"}', WRONG),
        ('```json\n{"Label": " Correct "}\n```', RIGHT),
        ('It fits {well}.\n{"label": "CORRECT"}', RIGHT),
        ('{"reason": "He said "boat"", "label": "WRONG"}', WRONG),  # broken JSON, clear label
        ("It names the same boat, so it is CORRECT.", RIGHT),
        ("**WRONG**", WRONG),
        ("correct", RIGHT),
        ("Correct.", RIGHT),
        ('<think>{"label": "CORRECT"}? No.</think>{"label": "WRONG"}', WRONG),
        # Nothing is guessed.
        ('{"label": "CORRECT"} or {"label": "WRONG"}', UNREADABLE),
        ("CORRECT or WRONG?", UNREADABLE),
        ("This is not CORRECT", UNREADABLE),
        ("It isn't CORRECT", UNREADABLE),
        ("INCORRECT", UNREADABLE),
        ("The answer is correct in spirit", UNREADABLE),
        ('{"reason": "It would be CORRECT if', UNREADABLE),  # cut off
        ('{"label": "PARTIALLY"}', UNREADABLE),
        ('{"label": true}', UNREADABLE),
        ("<think>It is CORRECT", UNREADABLE),
        ("", UNREADABLE),
        ("{" * 5000, UNREADABLE),
        ('{"label":' + "[" * 5000, UNREADABLE),
    ],
)
def test_labels(reply, expected):
    assert read_reply(reply, JSON) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("yes", RIGHT),
        ("No.", WRONG),
        ("**Yes**, it names the boat.", RIGHT),
        ("Answer: no", WRONG),
        ("no, although yes was close", WRONG),
        ('{"label": "yes"}', RIGHT),
        ("yesterday", UNREADABLE),
        ("The response is right: yes", UNREADABLE),
        ("CORRECT", UNREADABLE),
        ("…", UNREADABLE),
    ],
)
def test_words(reply, expected):
    assert read_reply(reply, WORD) == expected


def made(index, verdict=RIGHT, **changes):
    key = verdict_key("m", JSON, f"q{index}", "gold", "answer")
    fields = ("c1", index, "m", JSON.name, JSON.digest, key, verdict, ("raw é",), 0.5)
    return dataclasses.replace(Verdict(*fields), **changes)


def test_the_key_hangs_on_all_that_matters():
    base = ("m", JSON, "q", "g", "a")
    changes = [("n", JSON, "q", "g", "a"), ("m", WORD, "q", "g", "a"), ("m", JSON, "Q", "g", "a")]
    changes += [("m", JSON, "q", "G", "a"), ("m", JSON, "q", "g", "A"), ("m", JSON, "q", "ga", "")]
    keys = {verdict_key(*parts) for parts in [base, *changes]}
    assert len(keys) == 7
    assert verdict_key(*base) in keys


def test_the_file_gives_back_what_it_was_given(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    assert read_verdicts(path) == {}
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\nh {}"
    verdicts = [made(0), made(1, WRONG, raw=("?", odd.format("\ud800"))), made(2, UNREADABLE)]
    append_verdicts(path, verdicts[:1])
    append_verdicts(path, verdicts[1:])
    verdicts[1] = made(1, WRONG, raw=("?", odd.format("\ufffd")))
    assert list(read_verdicts(path).values()) == verdicts
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3
    first = json.loads(path.read_text().splitlines()[0])
    assert first["prompt_sha256"] == JSON.digest and first["raw"] == ["raw é"]
    assert {"conversation", "index", "judge", "verdict", "seconds"} <= set(first)


def test_a_half_line_at_any_place_is_left_out_and_then_replaced(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    append_verdicts(path, [made(0), made(1)])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        assert list(read_verdicts(path)) == [made(0).key]
        append_verdicts(path, [made(1)])
        assert path.read_bytes() == whole
    path.write_bytes(whole[:first] + b"\0" * 70_000)  # as after a power cut
    append_verdicts(path, [made(1)])
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"score": 1}\n', "hello\n", '{"scores": [1, 2]}', "[]\n", "3\n"]
)
def test_a_file_of_something_else_is_left_alone(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UserError, match="Line 1 of .*other.json is not a verdict"):
        read_verdicts(path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("written", "damaged"),
    [
        ('"right"', '"rigit"'),
        ('["raw é"]', '"raw é"'),
        ('["raw é"]', "[3]"),
        (made(1).key, made(1).key[1:] + "~"),
    ],
)
def test_a_damaged_line_is_never_counted_as_wrong(tmp_path, written, damaged):
    path = tmp_path / "verdicts.jsonl"
    append_verdicts(path, [made(0), made(1), made(2)])
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace(written, damaged)
    path.write_text("".join(lines))
    with pytest.raises(UserError, match=f"Line 2 of {path} is not a verdict.*Remove the line"):
        read_verdicts(path)


def test_a_full_disk_leaves_whole_lines(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "verdicts.jsonl"
    append_verdicts(path, [made(0)])
    whole = path.read_bytes()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, hard))
        with pytest.raises(UserError, match=f"{path} could not be written"):
            append_verdicts(path, [made(1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == whole


def test_several_writers_do_not_mix_their_lines(tmp_path):
    path = tmp_path / "verdicts.jsonl"

    def write(start):
        for index in range(start, start + 25):
            append_verdicts(path, [made(index, raw=("x" * 3000,))])

    threads = [threading.Thread(target=write, args=(25 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(v.index for v in read_verdicts(path).values()) == list(range(100))
