"""A judge behind a server that fails, delays, breaks off and talks rubbish."""

import base64
import email.utils
import json
import logging
import threading
import time

import pytest
from chat_server import KEY, chat, cut_off, drop, garbage, prediction, reply, send, status

from memr1_jax.bench.judge.endpoint import (
    EndpointOptions,
    _content,
    chat_address,
    endpoint_judge,
    read_key,
)
from memr1_jax.bench.judge.judge_prompts import judge_prompt
from memr1_jax.bench.judge.judging import Request, judge_cell, judge_rows
from memr1_jax.bench.judge.transport import Response, retry_after
from memr1_jax.errors import UserError

RIGHT, WRONG = '{"reason": "Same.", "label": "CORRECT"}', '{"reason": "Not.", "label": "WRONG"}'
ONE = EndpointOptions(concurrency=1)


class Setup:
    """A judge at the server whose pauses take no time, and what it logged."""

    def __init__(self, server, options=ONE, key=KEY, url=None):
        self.pauses, self.log = [], []
        self.judge = endpoint_judge(
            url or server.url,
            "judge-1",
            key,
            options,
            log=self.log.append,
            sleep=self.pauses.append,
            clock=lambda: 0.0,
            seed=0,
        )

    def ask(self, count=1, json_mode=True):
        messages = (("system", "Be fair."), ("user", "Is it right?"))
        requests = [Request(f"c1/{i}", messages, json_mode, 99) for i in range(count)]
        return list(self.judge.ask(requests))


def test_the_request_is_what_such_endpoints_take(server):
    (outcome,) = Setup(server).ask()
    assert outcome.text == '{"label": "CORRECT"}'
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["Content-Type"] == "application/json"
    assert request.body == {
        "model": "judge-1",
        "messages": [
            {"role": "system", "content": "Be fair."},
            {"role": "user", "content": "Is it right?"},
        ],
        "temperature": 0,
        "max_tokens": 99,
        "response_format": {"type": "json_object"},
    }
    Setup(server, EndpointOptions(extra_tokens=1000), key="").ask(json_mode=False)
    assert "Authorization" not in server.requests[1].headers
    assert "response_format" not in server.requests[1].body
    assert server.requests[1].body["max_tokens"] == 1099


def test_failures_that_may_pass_are_tried_again_after_growing_pauses(server):
    server.script(status(500), drop, garbage, cut_off, reply(RIGHT))
    setup = Setup(server)
    (outcome,) = setup.ask()
    assert outcome.text == RIGHT
    assert len(setup.pauses) == 4
    for pause, longest in zip(setup.pauses, (1, 2, 4, 8), strict=True):
        assert longest / 2 <= pause <= longest
    assert [line.split(":")[0] for line in setup.log] == [f"c1/0 attempt {i}" for i in range(1, 6)]
    words = ("HTTP 500", "broke", "no chat", "broke", "CORRECT")
    for line, word in zip(setup.log, words, strict=True):
        assert word in line


def test_a_delay_beyond_the_timeout_is_a_failure(server):
    server.script(server.hang, reply(WRONG))
    setup = Setup(server, EndpointOptions(timeout=0.15, concurrency=1))
    assert setup.ask()[0].text == WRONG
    assert "no reply within 0.15 s; again in" in setup.log[0]


def test_a_reply_that_drips_is_a_failure_too(server):
    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)

    server.script(drip, reply(RIGHT))
    setup = Setup(server, EndpointOptions(timeout=0.15, concurrency=1))
    assert setup.ask()[0].text == RIGHT
    assert "no reply within" in setup.log[0]


def test_retry_after_is_a_lower_bound_and_too_long_a_wish_ends_the_question(server):
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    server.script(
        status(429, Retry_After=7), status(503, Retry_After=date), status(429), reply(RIGHT)
    )
    setup = Setup(server)
    assert setup.ask()[0].text == RIGHT
    assert setup.pauses[0] == 7
    assert 95 < setup.pauses[1] <= 100
    assert 2 <= setup.pauses[2] <= 4
    server.script(status(429, b'{"error": {"message": "Quota"}}', Retry_After=86400))
    setup = Setup(server)
    assert setup.ask()[0].text is None
    assert setup.pauses == []
    assert "HTTP 429 'Quota'; the server asks to wait for 86400 s; given up" in setup.log[-1]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3), ("0.5", 0.5), ("-1", 0), ("soon", 0), ("", 0), ("nan", 0)],
)
def test_retry_after_headers(value, seconds):
    assert retry_after({"Retry-After": value}) == seconds
    assert retry_after({}) == 0
    assert retry_after({"Retry-After": "Thu, 01 Jan 2015 00:00:00 GMT"}) == 0


def test_after_the_last_attempt_the_question_has_failed(server):
    server.behave = lambda request, handler: send(handler, b"", 502)
    setup = Setup(server, EndpointOptions(attempts=3, concurrency=1))
    (outcome,) = setup.ask()
    assert (outcome.text, outcome.error) == (None, "HTTP 502")
    assert (len(server.requests), len(setup.pauses)) == (3, 2)


def test_a_server_that_is_away_ends_the_judging(server):
    server.behave = lambda request, handler: send(handler, b"", 500)
    setup = Setup(server, EndpointOptions(attempts=2, concurrency=1, patience=3))
    with pytest.raises(UserError, match="no reply to 3 questions in a row.*HTTP 500.*kept"):
        setup.ask(10)
    assert len(server.requests) < 20
    nobody = Setup(server, EndpointOptions(attempts=1), url="http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="no connection"):
        nobody.ask(9)


def test_single_failures_do_not_end_the_judging(server):
    steps = [status(500), reply(RIGHT), status(500), status(500), reply(WRONG), status(500)]
    server.script(*steps)
    options = EndpointOptions(attempts=1, concurrency=1, patience=3)
    texts = [outcome.text for outcome in Setup(server, options).ask(6)]
    assert texts == [None, RIGHT, None, None, WRONG, None]


def test_a_server_without_json_mode_is_asked_without(server):
    def behave(request, handler):
        if "response_format" in request.body:
            return send(handler, b'{"error": "response_format is not supported"}', 400)
        send(handler, chat(RIGHT))

    server.behave = behave
    setup = Setup(server)
    assert [outcome.text for outcome in setup.ask(3)] == [RIGHT] * 3
    tried = ["response_format" in request.body for request in server.requests]
    assert tried == [True, False, False, False]  # once for all questions
    assert setup.pauses == []


def test_a_question_that_is_refused_for_another_reason_fails_alone(server):
    def behave(request, handler):
        if len(server.requests) < 3:
            return send(handler, b'{"error": {"message": "too many tokens"}}', 400)
        send(handler, chat(RIGHT))

    server.behave = behave
    outcomes = Setup(server).ask(2)
    assert [outcome.text for outcome in outcomes] == [None, RIGHT]
    assert outcomes[0].error == "HTTP 400 'too many tokens'"
    assert "response_format" in server.requests[2].body  # JSON mode was not to blame


def test_the_newer_name_of_the_token_limit_is_learnt(server):
    def behave(request, handler):
        if "max_tokens" in request.body:
            message = {"message": "'max_tokens' is unknown; use 'max_completion_tokens'."}
            return send(handler, json.dumps({"error": message}).encode(), 400)
        send(handler, chat(RIGHT))

    server.behave = behave
    assert [outcome.text for outcome in Setup(server).ask(2)] == [RIGHT] * 2
    assert len(server.requests) == 3
    assert server.requests[2].body["max_completion_tokens"] == 99
    assert "response_format" in server.requests[2].body


@pytest.mark.parametrize(
    ("code", "advice"),
    [(401, "MEMR1_JUDGE_KEY"), (403, "--judge_model"), (404, "--judge_url"), (405, "--judge_url")],
)
def test_what_asking_again_cannot_mend_ends_at_once(server, code, advice):
    server.behave = lambda request, handler: send(handler, f"Wrong key: {KEY}".encode(), code)
    setup = Setup(server)
    with pytest.raises(UserError, match=f"HTTP {code}.*{advice}"):
        setup.ask(20)
    assert len(server.requests) < 4 and setup.pauses == []


def test_a_redirection_is_not_followed(server):
    server.script(status(307, Location="http://127.0.0.1:9/elsewhere"))
    with pytest.raises(UserError, match="sends requests elsewhere"):
        Setup(server).ask()
    assert len(server.requests) == 1


def test_no_more_requests_than_allowed_run_together_and_replies_keep_their_order(server):
    gate = threading.Barrier(3, timeout=10)

    def behave(request, handler):
        if len(server.requests) <= 3:
            gate.wait()  # passes only when three are under way together
        send(handler, chat(request.body["messages"][0]["content"]))

    server.behave = behave
    judge = Setup(server, EndpointOptions(concurrency=3)).judge
    requests = [Request("n", (("user", f"number {i}"),), True, 9) for i in range(12)]
    texts = [outcome.text for outcome in judge.ask(requests)]
    assert texts == [f"number {i}" for i in range(12)]
    assert server.most_running == 3


def test_a_connection_serves_further_questions(server):
    connections = set()

    def behave(request, handler):
        connections.add(handler.client_address)
        handler.protocol_version, handler.close_connection = "HTTP/1.1", False
        send(handler, chat(RIGHT))

    server.behave = behave
    assert [outcome.text for outcome in Setup(server).ask(3)] == [RIGHT] * 3
    assert len(connections) == 1


def test_addresses_and_headers_are_in_no_log(server, caplog):
    caplog.set_level(logging.DEBUG)
    server.script(status(500, X_Echo=KEY), reply(RIGHT))
    assert Setup(server, url=f"{server.url}?secret=word").ask()[0].text == RIGHT
    assert server.requests[0].path.endswith("?secret=word")
    assert KEY not in caplog.text and "secret" not in caplog.text


def test_content_that_is_null_is_an_empty_reply(server):
    server.script(reply(None))
    assert Setup(server).ask()[0].text == ""


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://a:8000/v1", "http://a:8000/v1/chat/completions"),
        ("https://a/v1/", "https://a/v1/chat/completions"),
        ("https://a/v1/chat/completions", "https://a/v1/chat/completions"),
        ("https://a/x?api-version=1", "https://a/x/chat/completions?api-version=1"),
    ],
)
def test_addresses(url, address):
    assert chat_address(url) == address


@pytest.mark.parametrize("url", ["a/v1", "ftp://a", "", "http://"])
def test_addresses_that_are_none(url):
    with pytest.raises(UserError, match="is not an address such as"):
        chat_address(url)
    with pytest.raises(UserError) as caught:
        chat_address("https://me:secret-word@host/v1")
    assert "secret-word" not in str(caught.value)


def test_which_key_is_used():
    both = {"MEMR1_JUDGE_KEY": " first \n", "OPENAI_API_KEY": "second"}
    assert read_key(both, "http://far.example/v1") == "first"
    general = {"OPENAI_API_KEY": "second"}
    assert read_key(general, "https://api.openai.com/v1") == "second"
    assert read_key(general, "http://localhost:8000/v1") == "second"
    assert read_key(general, "http://far.example/v1") == ""  # unencrypted, to another machine
    assert read_key({}, "https://a/v1") == ""


def test_the_key_is_in_no_output(server, tmp_path, capfd, caplog):
    """Sends the key back in every way; it is in no log, error, file or result."""
    caplog.set_level(logging.DEBUG)
    echo = f"You sent {KEY}! "
    long = "x" * 150 + KEY  # would be cut in the middle of the key
    server.script(
        status(500, echo.encode()),
        status(500, json.dumps({"error": {"message": long}}).encode()),
        lambda handler: send(handler, echo.encode()),
        reply(echo),  # unreadable, so asked again
        reply(f'{{"reason": "{KEY}", "label": "CORRECT"}}'),
        status(422, echo.encode()),
        status(422, echo.encode()),
        status(401, echo.encode()),
    )
    setup = Setup(server)
    path = tmp_path / "verdicts.jsonl"
    rows = [prediction(0), prediction(1, "a"), prediction(2, "b")]
    with pytest.raises(UserError) as caught:
        judge_rows(rows, setup.judge, path, prompt=judge_prompt("locomo"))
    assert len(server.requests) == 8
    assert all(r.headers["Authorization"] == f"Bearer {KEY}" for r in server.requests)
    captured = capfd.readouterr()
    outputs = [str(caught.value), repr(caught.value), repr(setup.judge), "\n".join(setup.log)]
    outputs += [captured.out, captured.err, caplog.text]
    outputs += [file.read_text() for file in tmp_path.iterdir()]
    assert "***" in path.read_text() and any("***" in line for line in setup.log)
    for output in outputs:
        assert KEY[:12] not in output and KEY[-12:] not in output
    with pytest.raises(UserError, match="characters that no key has") as caught:
        Setup(server, key=f"{KEY}\r\nX-Other: 1")
    assert KEY not in str(caught.value)


def test_a_key_that_comes_back_in_another_spelling_is_in_no_output(server, tmp_path):
    encoded = base64.b64encode(f"Bearer {KEY}".encode()).decode()
    escaped = "".join(f"%{byte:02x}" for byte in KEY.encode())
    spellings = (encoded, escaped, KEY.upper(), KEY.encode().hex())
    server.script(
        *(status(500, f"You sent {spelling}".encode()) for spelling in spellings),
        reply(f'{{"reason": "{encoded}, {KEY.upper()}", "label": "CORRECT"}}'),
    )
    setup, path = Setup(server), tmp_path / "verdicts.jsonl"
    judge_rows([prediction(0)], setup.judge, path, prompt=judge_prompt("locomo"))
    outputs = "\n".join([*setup.log, path.read_text()])
    assert outputs.count("***") >= 6
    assert not any(spelling in outputs for spelling in spellings)


def test_a_readable_log_of_a_troubled_server(server, tmp_path):
    """Prints requests, failures, retries and verdicts of six questions; run with -s."""
    troubles = {
        "Kim's boat": [reply(RIGHT)],
        "Lou's maps": [status(500, b"overloaded"), status(429, Retry_After=3), reply(WRONG)],
        "Kim's beans": [server.hang, drop, reply(RIGHT)],
        "Lou's dog": [garbage, reply("It is hard to say."), reply('{"label": "CORRECT"}')],
        "Kim's job": [reply("CORRECT or WRONG?"), reply("I cannot tell.")],
        "Lou's car": [status(503)] * 6,
    }
    left = {question: list(steps) for question, steps in troubles.items()}

    def behave(request, handler):
        text = request.body["messages"][0]["content"]
        (question,) = [question for question in left if question in text]
        left[question].pop(0)(handler)

    server.behave = behave
    setup = Setup(server, EndpointOptions(timeout=0.15, concurrency=1))
    rows = [prediction(i, question=question) for i, question in enumerate(troubles)]
    path, told = tmp_path / "verdicts.jsonl", []
    judged = judge_rows(
        rows, setup.judge, path, lambda *state: told.append(state), prompt=judge_prompt("locomo")
    )
    print(f"\nsix questions to {setup.judge.model}; pauses are told, not made")
    print("\n".join(setup.log), "\nverdicts:")
    print(path.read_text().replace(judge_prompt("locomo").digest, "(digest)"), end="")
    print("cell:", judge_cell(judged))
    assert all(not steps for steps in left.values())
    verdicts = [verdict and verdict.verdict for verdict in judged.verdicts]
    assert verdicts == ["right", "wrong", "right", "right", "unreadable", None]
    assert judge_cell(judged) == "75.00 (1 unreadable, 1 failed)"
    assert told == [(done, 6) for done in range(7)]
    assert KEY not in path.read_text() + "".join(setup.log)


def test_half_surrogates_in_a_reply_do_no_harm():
    body = rb'{"choices": [{"message": {"content": "\ud83d no \u2028"}}]}'
    assert _content(Response(200, body), str) == ("\ufffd no \u2028", "")
    _, said = _content(Response(500, rb'{"error": "\ud83d"}'), str)
    assert said == "HTTP 500 '\ufffd'"
