"""Judging a row: what is asked, what is kept, and what a table says."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from chat_server import KEY, chat, prediction, send

from memr1_jax.bench.judge.endpoint import EndpointOptions, endpoint_judge
from memr1_jax.bench.judge.judge_prompts import judge_prompt, longmemeval_prompt
from memr1_jax.bench.judge.judging import Judge, Outcome, judge_cell, judge_rows
from memr1_jax.bench.judge.verdicts import read_verdicts
from memr1_jax.errors import UserError
from memr1_jax.evals.intervals import mean_by_questions

PROMPT = judge_prompt("locomo")


def fake(replies, batch=4, model="m"):
    """Returns a judge that says `replies` for each answer, once each, and records what it heard."""
    heard = []

    def ask(requests):
        for request in requests:
            heard.append(request)
            (answer,) = [a for a in replies if f"Generated answer: {a}\n" in request.messages[0][1]]
            text = replies[answer].pop(0)
            yield Outcome(text, 0.25, "" if text is not None else "gone")

    return Judge(model, ask, batch), heard


def yes():
    return '{"label": "CORRECT"}'


def no():
    return '{"label": "WRONG"}'


def test_verdicts_scores_and_progress(tmp_path):
    judge, heard = fake({"a": [yes()], "b": [no()], "c": [yes()]}, batch=2)
    rows = [prediction(4, "a"), prediction(0, "b", conv="c2"), prediction(7, "c")]
    told = []
    path = tmp_path / "deep" / "v.jsonl"
    judged = judge_rows(rows, judge, path, lambda *s: told.append(s), prompt=PROMPT)
    assert judged.scores == {("c1", 4): 1, ("c2", 0): 0, ("c1", 7): 1}
    assert (judged.model, judged.asked, judged.unreadable, judged.failed) == ("m", 3, 0, 0)
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [request.name for request in heard] == ["c1/4", "c2/0", "c1/7"]
    assert {(request.json, request.max_tokens) for request in heard} == {(True, 256)}


def test_what_cannot_be_read_is_asked_once_more_and_then_missing(tmp_path):
    replies = {
        "a": [yes()],
        "b": ["hm", no()],
        "c": ["hm", "well"],
        "d": [yes()],
        "e": ["hm", None],
    }
    judge, heard = fake({k: list(v) for k, v in replies.items()}, batch=5)
    path = tmp_path / "v.jsonl"
    rows = [prediction(i, answer) for i, answer in enumerate("abcde")]
    judged = judge_rows(rows, judge, path, prompt=PROMPT)
    assert judged.scores == {("c1", 0): 1, ("c1", 1): 0, ("c1", 3): 1}
    assert (judged.unreadable, judged.failed, judged.asked) == (1, 1, 6)
    assert heard[5].messages[1:] == (("assistant", "hm"), ("user", PROMPT.reminder))
    kept = list(read_verdicts(path).values())
    assert [v.index for v in kept] == [0, 1, 2, 3]  # in order, without the one that failed
    assert [v.raw for v in kept] == [(yes(),), ("hm", no()), ("hm", "well"), (yes(),)]
    assert [v.seconds for v in kept] == [0.25, 0.5, 0.5, 0.25]
    # What was unreadable stays so; what failed is asked again.
    judge, heard = fake({"e": [yes()]})
    again = judge_rows(rows, judge, path, prompt=PROMPT)
    assert [request.name for request in heard] == ["c1/4"]
    assert (again.unreadable, again.failed, again.asked, len(again.scores)) == (1, 0, 1, 4)


def test_the_cache_knows_model_prompt_question_gold_and_answer(tmp_path):
    path = tmp_path / "v.jsonl"

    def asked(row, model="m", prompt=PROMPT):
        judge, heard = fake({row.answer: [yes()]}, model=model)
        judge_rows([row], judge, path, prompt=prompt)
        return len(heard)

    assert asked(prediction(0)) == 1
    assert asked(prediction(0)) == asked(prediction(5, conv="c9")) == 0
    assert asked(prediction(0), model="n") == 1
    assert asked(prediction(0), prompt=judge_prompt("msc_strict")) == 1
    assert asked(prediction(0, answer="a ship")) == 1
    assert asked(prediction(0, gold="his boat")) == 1
    assert asked(prediction(0, question="What sank?")) == 1
    assert len(read_verdicts(path)) == 6


def test_equal_answers_are_judged_once(tmp_path):
    judge, heard = fake({"a": [yes()], "b": [no()]})
    rows = [prediction(0, "a"), prediction(1, "b"), prediction(2, "a")]
    told = []
    judged = judge_rows(rows, judge, tmp_path / "v", lambda *s: told.append(s), prompt=PROMPT)
    assert judged.scores == {("c1", 0): 1, ("c1", 1): 0, ("c1", 2): 1}
    assert len(heard) == 2
    assert told == [(0, 3), (2, 3), (3, 3)]


def test_the_prompt_may_hang_on_the_question(tmp_path):
    asked = []

    def ask(requests):
        asked.extend(requests)
        return (Outcome("no", 0.0) for _ in requests)

    kinds = ["temporal-reasoning", "knowledge-update"]
    rows = [prediction(0), prediction(1)]
    path = tmp_path / "v.jsonl"
    judge_rows(
        rows, Judge("m", ask, 8), path, prompt=lambda row: longmemeval_prompt(kinds[row.index])
    )
    assert [v.prompt for v in read_verdicts(path).values()] == [
        "longmemeval_temporal",
        "longmemeval_update",
    ]
    assert [(request.json, request.max_tokens) for request in asked] == [(False, 16)] * 2


def test_what_a_judge_said_before_it_went_away_is_kept(tmp_path):
    def ask(requests):
        yield from (Outcome(text, 0.0) for text in (yes(), "hm", no()))
        raise UserError("The judge is gone.")

    path = tmp_path / "v.jsonl"
    rows = [prediction(i, answer) for i, answer in enumerate("abcd")]
    with pytest.raises(UserError, match="gone"):
        judge_rows(rows, Judge("m", ask, 8), path, prompt=PROMPT)
    assert [v.index for v in read_verdicts(path).values()] == [0, 2]
    judge, heard = fake({"b": ["hm", yes()], "d": [no()]})
    assert len(judge_rows(rows, judge, path, prompt=PROMPT).scores) == 4
    assert [request.name for request in heard] == ["c1/1", "c1/3", "c1/1"]


def test_cells_of_the_table(tmp_path):
    path = tmp_path / "v.jsonl"
    rows = [prediction(i, answer) for i, answer in enumerate("abc")]
    assert judge_rows(rows, None, path, prompt=PROMPT) is None
    assert judge_cell(None) == "not run"
    assert not path.exists()
    judge, _ = fake({"a": [yes()], "b": [no()], "c": [yes()]})
    judged = judge_rows(rows, judge, path, prompt=PROMPT)
    assert judge_cell(judged) == "66.67"
    assert judge_cell(judged, mean_by_questions(judged.scores)) == "66.67 [0.00, 100.00]"
    judge, _ = fake({"x": [None], "y": ["?", "?"]})
    judged = judge_rows([prediction(0, "x"), prediction(1, "y")], judge, path, prompt=PROMPT)
    assert judge_cell(judged) == "– (0 of 2 judged)"


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    judge, heard = fake({"a": [yes()]})
    with pytest.raises(UserError, match="file of verdicts .* cannot be written"):
        judge_rows([prediction(0, "a")], judge, tmp_path / "file" / "v.jsonl", prompt=PROMPT)
    assert heard == []


CHILD = """
import sys
sys.path.append(sys.argv[3])
from chat_server import prediction
from memr1_jax.bench.judge.endpoint import EndpointOptions, endpoint_judge, read_key
from memr1_jax.bench.judge.judging import judge_rows
from memr1_jax.bench.judge.judge_prompts import judge_prompt
import os
url, path = sys.argv[1:3]
judge = endpoint_judge(
    url, "m", read_key(os.environ, url), EndpointOptions(concurrency=3), clock=lambda: 0.0
)
rows = [prediction(i, f"answer {i}") for i in range(24)]
judge_rows(rows, judge, path, prompt=judge_prompt("locomo"))
"""


def test_a_run_that_was_killed_goes_on_to_the_identical_file(server, tmp_path):
    """Sends SIGKILL with three requests under way and half a line in the file, then runs again."""

    def content(request):
        label = "CORRECT" if "answer 1" in request.body["messages"][0]["content"] else "WRONG"
        if "answer 5\n" in request.body["messages"][0]["content"]:
            return "hm"  # is asked again
        return f'{{"label": "{label}"}}'

    arrived = threading.Event()

    def stall(request, handler):
        if len(server.requests) >= 16:
            while not (broken.exists() and broken.read_bytes().count(b"\n")):
                time.sleep(0.01)
            arrived.set()
            return server.hang(handler)
        send(handler, chat(content(request)))

    def judged_in_full(path):
        server.behave = lambda request, handler: send(handler, chat(content(request)))
        options = EndpointOptions(concurrency=3)
        judge = endpoint_judge(server.url, "m", KEY, options, clock=lambda: 0.0)
        rows = [prediction(i, f"answer {i}") for i in range(24)]
        return judge_rows(rows, judge, path, prompt=PROMPT)

    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    server.behave = stall
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, server.url, broken, os.path.dirname(__file__)],
        env=os.environ | {"MEMR1_JUDGE_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert arrived.wait(30), child.communicate(timeout=5)
    child.send_signal(signal.SIGKILL)
    output, _ = child.communicate(timeout=10)
    assert child.returncode == -signal.SIGKILL
    assert KEY.encode() not in output + broken.read_bytes()
    kept = broken.read_bytes()
    assert 1 <= kept.count(b"\n") < 16
    judged = judged_in_full(whole)
    assert whole.read_bytes().startswith(kept)
    with open(broken, "ab") as file:
        file.write(whole.read_bytes()[len(kept) : len(kept) + 100])  # half of the next line
    before = len(server.requests)
    assert judged_in_full(broken).scores == judged.scores
    assert broken.read_bytes() == whole.read_bytes()
    assert len(server.requests) - before == 24 - kept.count(b"\n") + 1
