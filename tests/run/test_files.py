import errno
import io
import json
import os
import pathlib

import pytest

from memr1_jax.errors import UserError
from memr1_jax.run import files


def test_writes_text_and_json_without_leftovers(tmp_path):
    files.write_text_atomic(tmp_path / "note.txt", "naïve\n")
    files.write_text_atomic(tmp_path / "note.txt", "new\n")
    files.write_json_atomic(tmp_path / "config.json", {"name": "ß", "steps": 3})
    assert (tmp_path / "note.txt").read_bytes() == b"new\n"
    assert json.loads((tmp_path / "config.json").read_text("utf-8")) == {"name": "ß", "steps": 3}
    assert sorted(os.listdir(tmp_path)) == ["config.json", "note.txt"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "config.json"
    files.write_json_atomic(path, {"old": True})

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, broken, fail)
    said = f"{path} could not be written .No space left on device.*Make room.*--resume"
    with pytest.raises(UserError, match=said):
        files.write_json_atomic(path, {"old": False})
    assert json.loads(path.read_text()) == {"old": True}
    assert os.listdir(tmp_path) == ["config.json"]


def test_an_append_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "log"

    class Full(io.FileIO):
        room = 12

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            count = min(self.room, len(data))
            self.room -= count
            return super().write(bytes(data[:count]))

    with Full(path, "a") as file:
        files.append_whole(file, b"0123456\n")
        with pytest.raises(UserError, match=f"{path} could not be written .No space left"):
            files.append_whole(file, b"abcdefg\n")
        assert path.read_bytes() == b"0123456\n"
        file.room = 100
        files.append_whole(file, b"abcdefg\n")
    assert path.read_bytes() == b"0123456\nabcdefg\n"


def test_a_value_that_json_cannot_hold_keeps_the_old_file(tmp_path):
    path = tmp_path / "config.json"
    files.write_json_atomic(path, {"old": True})
    with pytest.raises(ValueError):
        files.write_json_atomic(path, {"loss": float("nan")})
    assert json.loads(path.read_text()) == {"old": True}


@pytest.mark.parametrize("resume", [False, True])
def test_a_new_or_empty_folder_is_ready(tmp_path, resume):
    folder = files.prepare_run_folder(tmp_path / "a" / "run", resume)
    assert folder == tmp_path / "a" / "run" and os.listdir(folder) == []
    assert files.prepare_run_folder(folder, resume) == folder


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.prepare_run_folder("run", resume=False) == tmp_path / "run"


@pytest.mark.parametrize("mark", ["metrics.jsonl", "checkpoints/3"])
def test_a_folder_with_a_run_needs_resume(tmp_path, mark):
    path = tmp_path / mark
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}\n")
    with pytest.raises(UserError, match="already holds a run.*--resume"):
        files.prepare_run_folder(tmp_path, resume=False)
    assert files.prepare_run_folder(tmp_path, resume=True) == tmp_path
    assert path.read_text() == "{}\n"


def test_a_run_that_never_started_does_not_count(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}")
    assert files.prepare_run_folder(tmp_path, resume=False) == tmp_path


def test_a_file_in_the_way_is_named(tmp_path):
    path = tmp_path / "run"
    path.write_text("")
    with pytest.raises(UserError, match=f"{path} is a file"):
        files.prepare_run_folder(path, resume=False)
    with pytest.raises(UserError, match="cannot be written"):
        files.prepare_run_folder(path / "below", resume=False)


@pytest.mark.skipif(not pathlib.Path("/proc/self").is_dir(), reason="needs Linux's /proc")
def test_an_unwritable_folder_is_named():
    # Nobody may write here, root included.
    with pytest.raises(UserError, match="/proc/self cannot be written.*--output"):
        files.prepare_run_folder("/proc/self", resume=True)


@pytest.mark.parametrize("folder", ["/", "/etc", "/etc/absent", "/usr/lib", "/tmp/../etc", "~"])
def test_a_folder_of_the_system_is_refused_and_left_alone(folder):
    before = os.path.exists(folder)
    for resume in (False, True):
        with pytest.raises(UserError, match="folder of the system or of all your files.*--output"):
            files.prepare_run_folder(folder, resume)
    assert os.path.exists(folder) == before


@pytest.mark.parametrize("name", ["trackers.json", "wandb/run", "mlflow.db", "mlartifacts/1"])
def test_what_a_tracker_left_is_a_run_s_own(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    (tmp_path / "thesis.tex").touch()
    assert files.prepare_run_folder(tmp_path, resume=False) == tmp_path


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "run.log").write_text("what the shell wrote")
    (tmp_path / ".hidden").touch()
    assert files.prepare_run_folder(tmp_path, resume=False) == tmp_path
    (tmp_path / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(UserError, match="holds thesis.tex, which no run has written"):
            files.prepare_run_folder(tmp_path, resume)
    (tmp_path / "flags.txt").touch()  # a run's folder, in which its user keeps more
    assert files.prepare_run_folder(tmp_path, resume=True) == tmp_path


def test_a_home_that_there_is_not_is_named():
    with pytest.raises(UserError, match="~nosuchuser/x begins with the home of an unknown user"):
        files.prepare_run_folder("~nosuchuser/x", resume=False)


def test_a_file_is_writable_or_refused(tmp_path):
    path = tmp_path / "sub" / "page.md"
    assert files.writable_file(path) == path and path.parent.is_dir() and not path.exists()
    with pytest.raises(UserError, match="--results=.*is a folder"):
        files.writable_file(tmp_path, "results")
    with pytest.raises(UserError, match="/etc cannot be written.*--output"):
        files.writable_file("/etc/page.md")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        files.writable_file(tmp_path / "file" / "page.md")
