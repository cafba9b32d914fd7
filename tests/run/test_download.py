"""Downloads from a server on this machine that cuts, refuses and lies on request."""

import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading

import pytest

from memr1_jax.errors import UserError
from memr1_jax.run import download as module
from memr1_jax.run.download import download

CONTENT = bytes(range(256)) * 1200
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ADVICE = "Put it there by hand."


class Server:
    """Serves `content`; each entry of `cuts` ends one answer after so many bytes."""

    def __init__(self):
        self.content, self.cuts, self.status, self.knows_range = CONTENT, [], None, True
        self.ranges, self.sent = [], 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                server.ranges.append(wanted)
                if server.status:
                    return self.answer(server.status, b"")
                if wanted is None or not server.knows_range:
                    return self.answer(200, server.content)
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
                if start >= len(server.content):
                    return self.answer(416, b"")
                return self.answer(206, server.content[start:])

            def answer(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if server.cuts and status < 300:
                    body = body[: server.cuts.pop(0)]
                server.sent += len(body)
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", ())
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "file.bin"


def fetch(server, path):
    download(server.url, path, SHA256, "The file", ADVICE)


def part(path, content=None):
    part = path.with_name("file.bin.part")
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        part.write_bytes(content)
    return part


def alone(path):
    return path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]


def test_the_whole_file_once(server, path, capfd):
    fetch(server, path)
    fetch(server, path)
    assert alone(path) and server.ranges == [None]
    out, progress = capfd.readouterr()
    assert out == "" and "The file" in progress and "\x1b" not in progress


def test_an_existing_file_is_left_as_it_is(server, path):
    path.parent.mkdir()
    path.write_bytes(b"other")
    fetch(server, path)
    assert path.read_bytes() == b"other" and server.ranges == [] and not part(path).exists()


def test_a_later_call_fetches_only_what_is_missing(server, path):
    server.cuts = [100_000]
    with pytest.raises(UserError) as error:
        fetch(server, path)
    message = str(error.value)
    assert server.url in message and f"100000 of {len(CONTENT)} bytes" in message
    assert f"kept in {part(path)} for the next try" in message and message.endswith(ADVICE)
    assert part(path).read_bytes() == CONTENT[:100_000] and not path.exists()
    fetch(server, path)
    assert alone(path)
    assert server.ranges == [None, "bytes=100000-"] and server.sent == len(CONTENT)


def test_one_call_resumes_after_growing_pauses(server, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(module, "PAUSES", (1.0, 2.0, 4.0))
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    server.cuts = [1000, 0, 70_000]
    fetch(server, path)
    assert alone(path) and pauses == [1.0, 2.0, 4.0] and server.sent == len(CONTENT)
    assert server.ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=71000-"]


def test_the_tries_come_to_an_end(server, path, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (1.0, 2.0, 4.0))
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    server.cuts = [10, 10, 10, 10]
    with pytest.raises(UserError, match="40 of"):
        fetch(server, path)
    assert part(path).read_bytes() == CONTENT[:40]


def test_a_server_without_ranges_starts_anew(server, path):
    server.knows_range = False
    part(path, CONTENT[:5000])
    fetch(server, path)
    assert alone(path) and server.ranges == ["bytes=5000-"]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 9])
def test_garbage_of_full_length_or_more_starts_anew(server, path, length):
    part(path, b"x" * length)
    fetch(server, path)
    assert alone(path) and server.ranges == [f"bytes={length}-", None]


def test_short_garbage_is_found_out_and_removed(server, path):
    part(path, b"garbage")
    with pytest.raises(UserError, match="sha256"):
        fetch(server, path)
    assert list(path.parent.iterdir()) == []
    fetch(server, path)
    assert alone(path)


def test_a_complete_part_needs_no_network(server, path):
    part(path, CONTENT)
    fetch(server, path)
    assert alone(path) and server.ranges == []


def test_other_content_is_refused_with_both_digests_and_removed(server, path):
    server.content = CONTENT[::-1]
    with pytest.raises(UserError) as error:
        fetch(server, path)
    message = str(error.value)
    for digest in (SHA256, hashlib.sha256(server.content).hexdigest()):
        assert digest in message
    assert server.url in message and message.endswith(ADVICE)
    assert list(path.parent.iterdir()) == []


def test_out_of_reach(server, path):
    part(path, b"abc")
    with pytest.raises(UserError, match=f"http://127.0.0.1:9/file.*refused.*kept.*{ADVICE}$"):
        download("http://127.0.0.1:9/file", path, SHA256, "The file", ADVICE)
    assert part(path).read_bytes() == b"abc"


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (429, 3), (503, 3)])
def test_only_passing_trouble_is_tried_again(server, path, monkeypatch, status, tries):
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    server.status = status
    with pytest.raises(UserError, match=f"{server.url}: HTTP Error {status}.*{ADVICE}$"):
        fetch(server, path)
    assert len(server.ranges) == tries and list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=f"could not be stored at .*{ADVICE}$"):
        fetch(server, tmp_path / "file" / "file.bin")


def test_processes_wait_for_each_other(server, path):
    code = "import sys; from memr1_jax.run.download import download\nfrom pathlib import Path\n"
    code += "download(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])"
    command = [sys.executable, "-c", code, server.url, str(path), SHA256, "The file", ADVICE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _ in range(4)
    ]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert alone(path) and server.ranges == [None]


def test_threads_find_the_removal_and_the_rename_of_what_they_waited_for(server, path):
    server.cuts = [5, 5, 5]
    outcomes = []

    def run():
        try:
            fetch(server, path)
            outcomes.append("done")
        except UserError:
            outcomes.append("cut")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["cut"] * 3 + ["done"] * 5
    assert alone(path) and server.sent == len(CONTENT)
