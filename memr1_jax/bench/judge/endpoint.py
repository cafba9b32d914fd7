"""A judge behind an OpenAI-compatible chat endpoint: retries, limits, and a key that stays hidden.

The key comes from the environment and goes into one header of the requests. It is in no message,
no log and no file; where a server sends it back, in whatever spelling, it is blotted out.
"""

import collections
import concurrent.futures
import dataclasses
import json
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence

from memr1_jax.bench.judge.judging import Judge, Outcome, Request
from memr1_jax.bench.judge.secret import blotter
from memr1_jax.bench.judge.transport import Response, make_client, post
from memr1_jax.errors import UserError
from memr1_jax.run.files import whole_characters

KEY_VARIABLES = ("MEMR1_JUDGE_KEY", "OPENAI_API_KEY")

_HOPELESS = {
    **dict.fromkeys(
        (301, 302, 303, 307, 308),
        "it sends requests elsewhere; give --judge_url the last address that it names",
    ),
    401: f"it does not accept the key; set {KEY_VARIABLES[0]}",
    403: f"the key may not be used for this; check {KEY_VARIABLES[0]} and --judge_model",
    404: "it knows no such address or model; check --judge_url and --judge_model",
    405: "it takes no chat requests at this address; check --judge_url",
}
_AGAIN = (408, 409, 425, 429)


@dataclasses.dataclass(frozen=True)
class EndpointOptions:
    """Sets how patiently an endpoint is asked; times in seconds."""

    timeout: float = 60.0  # of one attempt, from the first byte sent to the last one read
    attempts: int = 6
    first_wait: float = 1.0  # doubled with every attempt, and varied by up to a half
    longest_wait: float = 60.0
    longest_retry_after: float = 600.0  # a server that asks for more is not waited for
    extra_tokens: int = 0  # room for a judge that thinks before it replies
    concurrency: int = 8
    patience: int = 4  # questions in a row without a reply before judging ends


def read_key(environment: Mapping[str, str], url: str) -> str:
    """Returns the key for an endpoint, or "" where the environment has none.

    `MEMR1_JUDGE_KEY` comes first. `OPENAI_API_KEY` is not sent unencrypted to another machine.
    """
    first, second = (environment.get(name, "").strip() for name in KEY_VARIABLES)
    return first or (second if _is_private(url) else "")


def _is_private(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


def chat_address(url: str) -> str:
    """Returns the address of chat completions under one such as "http://localhost:8000/v1".

    Raises:
      UserError: it is no http address, or holds a user name or password.
    """
    parts = urllib.parse.urlsplit(url.strip())
    if "@" in parts.netloc:
        raise UserError(
            "--judge_url holds a user name or a password. Leave it out, and set"
            f" {KEY_VARIABLES[0]}."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"--judge_url={url} is not an address such as https://api.openai.com/v1 or"
            " http://localhost:8000/v1."
        )
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def endpoint_judge(
    url: str,
    model: str,
    key: str = "",
    options: EndpointOptions = EndpointOptions(),
    *,
    log: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    seed: int | None = None,
) -> Judge:
    """Returns a judge that asks `model` behind `url`, at temperature 0.

    JSON is asked for by the request's `response_format` until the server refuses it, from then on
    by the prompt alone. Failures that may pass (timeouts, lost connections, status 408, 409, 425,
    429 and 5xx, replies that are no chat completion) are tried again after growing pauses, and not
    before the time that the server asks for.

    Args:
      url: base address of the endpoint, or that of its chat completions.
      model: as the endpoint calls it.
      key: sent as a bearer token; see `read_key`.
      options: times and limits.
      log: gets a line for every attempt and what came of it.
      sleep: waits for some seconds; by default so that it ends when judging ends.
      clock: seconds.
      seed: of the varied pauses.

    Raises:
      UserError: the address is none, or the key cannot stand in a header. When asked: the endpoint
        does not know the model, refuses the key, or does not reply to several questions in a row.
    """
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"The judge's key holds characters that no key has. Set {KEY_VARIABLES[0]} again."
        )
    client = _Client(chat_address(url), model, key, options, log, clock, random.Random(seed))
    ask = _in_order(client, sleep)
    return Judge(model, ask, batch=8 * options.concurrency)


def _in_order(client: "_Client", sleep: Callable[[float], None] | None) -> Callable:
    """Asks in parallel and yields in order; drops requests not begun when the caller stops."""
    silent = collections.deque(maxlen=client.options.patience)

    def ask(requests: Sequence[Request]) -> Iterator[Outcome]:
        stop = threading.Event()
        pool = concurrent.futures.ThreadPoolExecutor(client.options.concurrency)
        wait = stop.wait if sleep is None else sleep
        futures = [pool.submit(client.ask, request, wait, stop) for request in requests]
        try:
            for future in futures:
                outcome = future.result()
                silent.append(outcome.text is None)
                if all(silent) and len(silent) == silent.maxlen:
                    raise UserError(
                        f"The judge at {client.shown} gave no reply to {len(silent)} questions in a"
                        f" row; the last one: {outcome.error}. The verdicts so far are kept: run"
                        " the same command again when it replies."
                    )
                yield outcome
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    return ask


class _Client:
    """State that the threads share; `json_mode` and `limit_name` follow what the server accepts."""

    def __init__(self, address, model, key, options, log, clock, rng):
        self.address, self.model, self.options = address, model, options
        self._blot = blotter(key)
        self.shown = self._blot(address.split("?")[0])
        self.log, self.clock, self.rng = log, clock, rng
        self.json_mode, self.limit_name = True, "max_tokens"
        self._http = make_client(options.concurrency)
        self._key = key

    def ask(self, request: Request, wait: Callable, stop: threading.Event) -> Outcome:
        """Asks until there is a reply, or the request is refused, or has failed too often.

        No retry library does it in fewer lines: asking again in another form is no attempt.
        """
        start, attempt, error = self.clock(), 0, "stopped"
        json_mode = request.json and self.json_mode
        while attempt < self.options.attempts and not stop.is_set():
            attempt += 1
            limit_name = self.limit_name
            response = self._post(request, json_mode, limit_name)
            text, error = _content(response, self._blot)
            if text is not None:
                self._note(request, attempt, f"reply {_shorten(text)}")
                if request.json and not json_mode:
                    self.json_mode = False  # it was this that the server refused
                return Outcome(text, self.clock() - start)
            if response.status in (400, 415, 422) and (
                "max_completion_tokens" in error and limit_name == "max_tokens" or json_mode
            ):
                if "max_completion_tokens" in error and limit_name == "max_tokens":
                    self.limit_name = "max_completion_tokens"
                else:
                    json_mode = False
                self._note(request, attempt, f"{error}; asked again in another form")
                attempt -= 1
                continue
            if response.status in _HOPELESS:
                self._note(request, attempt, error)
                raise UserError(
                    f"The judge at {self.shown} refused ({error}): {_HOPELESS[response.status]}."
                )
            if 400 <= response.status < 500 and response.status not in _AGAIN:
                break
            if response.retry_after > self.options.longest_retry_after:
                error += f"; the server asks to wait for {response.retry_after:.0f} s"
                break
            if attempt < self.options.attempts:
                pause = max(self._pause(attempt), response.retry_after)
                self._note(request, attempt, f"{error}; again in {pause:.2f} s")
                wait(pause)
        self._note(request, attempt, f"{error}; given up")
        return Outcome(None, self.clock() - start, error)

    def _post(self, request, json_mode, limit_name) -> Response:
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
            "temperature": 0,
            limit_name: request.max_tokens + self.options.extra_tokens,
        }
        if json_mode:
            body["response_format"] = {"type": "json_object"}
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode()
        return post(self._http, self.address, data, headers, self.options.timeout)

    def _pause(self, attempt):
        longest = min(self.options.longest_wait, self.options.first_wait * 2 ** (attempt - 1))
        return longest * self.rng.uniform(0.5, 1.0)

    def _note(self, request, attempt, event):
        self.log(f"{request.name} attempt {attempt}: {event}")


def _content(response: Response, blot: Callable[[str], str]) -> tuple[str | None, str]:
    """Returns the text of a chat completion, or None and what was there instead."""
    if response.error:
        return None, blot(response.error)
    if response.status in (401, 403):
        return None, f"HTTP {response.status}"  # what such servers say quotes parts of the key
    if response.status != 200:
        said = _shorten(blot(_message(response.body)))
        return None, f"HTTP {response.status} {said}".strip()
    try:
        message = json.loads(response.body)["choices"][0]["message"]
        return blot(whole_characters(str(message.get("content") or ""))), ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        said = _shorten(blot(_text(response.body)))
        return None, f"a reply that is no chat completion: {said}"


def _message(body: bytes) -> str:
    """Reads a server's words about an error: its message where it has the usual form."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError, RecursionError):
        return _text(body)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _shorten(text: str, width: int = 160) -> str:
    text = " ".join(whole_characters(text).split())
    return repr(text if len(text) <= width else text[: width - 1] + "…") if text else ""
