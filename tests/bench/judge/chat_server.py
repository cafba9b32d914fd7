"""A chat endpoint on this machine that misbehaves as it is told, and predictions to judge."""

import dataclasses
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

KEY = "sk-test-7f3a9c51d2e84b60"


def chat(content) -> bytes:
    """Returns the body of a chat completion."""
    return json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": content}}]}
    ).encode()


@dataclasses.dataclass
class Server:
    """What was asked, and how to behave: `behave(request, handler)` for every request."""

    url: str = ""
    behave: Callable = lambda request, handler: send(handler, chat('{"label": "CORRECT"}'))
    requests: list = dataclasses.field(default_factory=list)
    running: int = 0
    most_running: int = 0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    released: threading.Event = dataclasses.field(default_factory=threading.Event)

    def script(self, *steps) -> None:
        """Returns one behaviour after another, for requests that come one after another."""
        left = list(steps)

        def behave(request, handler):
            with self.lock:
                step = left.pop(0)
            step(handler)

        self.behave = behave

    def hang(self, handler) -> None:
        """Says nothing until the test is over."""
        self.released.wait(20)
        handler.close_connection = True


def send(handler, body: bytes, status: int = 200, **headers) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def reply(content):
    return lambda handler: send(handler, chat(content))


def status(code: int, body: bytes = b"", **headers):
    return lambda handler: send(handler, body, code, **headers)


def garbage(handler) -> None:
    send(handler, b"<html>502 but with status 200</html>")


def drop(handler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


def cut_off(handler) -> None:
    """Promises more than it sends."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = SimpleNamespace(
                path=self.path, headers=dict(self.headers), body=json.loads(body)
            )
            with state.lock:
                state.requests.append(request)
                state.running += 1
                state.most_running = max(state.most_running, state.running)
            try:
                state.behave(request, self)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has gone
            finally:
                with state.lock:
                    state.running -= 1

        def log_message(self, *arguments):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/v1"
    yield state
    state.released.set()
    httpd.shutdown()
    httpd.server_close()


def prediction(index, answer="a boat", question="What did Kim paint?", gold="her boat", conv="c1"):
    return SimpleNamespace(
        conversation=conv, index=index, question=question, gold=gold, answer=answer
    )
