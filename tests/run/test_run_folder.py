"""A run folder belongs to one run, and its record says what that was begun with."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest

from memr1_jax.errors import UserError
from memr1_jax.options import option
from memr1_jax.run import lock, run_folder
from memr1_jax.run.checkpoints import Checkpoints
from memr1_jax.run.download import cache_folder
from memr1_jax.run.run_folder import Input, RunFolder, set_aside


@dataclasses.dataclass(frozen=True)
class _Inner:
    rate: float = option(0.1, "A number.")
    names: tuple = option(("a", "b"), "Names.")


@dataclasses.dataclass(frozen=True)
class _Options:
    seed: int = option(0, "A seed.")
    steps: int = option(10, "Steps.")
    export: bool = option(False, "A switch.")
    inner: _Inner = _Inner()


INPUTS = {"--model": Input("tiny", "ab" * 32), "prompt": Input("compact", "cd" * 32)}


def _open(folder, options=_Options(), *, job="training", resume=False, inputs=INPUTS, **given):
    """Opens and records a run, as a process does that then makes a step and ends."""
    with RunFolder(
        folder, job, options, resume=resume, free={"steps"}, may_turn_on={"export"}, **given
    ) as opened:
        opened.record(inputs)
        (opened.path / "metrics.jsonl").write_text("{}\n")
    return opened


def test_the_record_says_what_the_run_was_begun_with(tmp_path):
    assert not _open(tmp_path / "run").begun
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["job"] == "training" and record["version"]
    # Options that are held by others are there by their own names; free ones are not there.
    assert record["options"] == {"seed": 0, "export": False, "rate": 0.1, "names": ["a", "b"]}
    assert record["inputs"]["--model"] == {"name": "tiny", "digest": "ab" * 32}
    assert os.listdir(tmp_path) == ["run"]
    assert sorted(os.listdir(tmp_path / "run")) == ["metrics.jsonl", "run.json"]


def test_a_resumed_run_agrees_with_its_record(tmp_path):
    _open(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    assert _open(tmp_path, _Options(steps=99, export=True), resume=True).begun
    changed = _Options(seed=1, inner=_Inner(rate=0.2))
    with pytest.raises(UserError) as error:
        _open(tmp_path, changed, resume=True)
    said = str(error.value)
    assert "other options: --seed=1 (was 0), --rate=0.2 (was 0.1). " in said
    assert "--output another folder" in said and "--overwrite" in said and "--steps" not in said
    assert (tmp_path / "run.json").read_bytes() == before
    _open(tmp_path, resume=True)  # a refusal does not keep the folder


def test_what_was_turned_on_stays_on(tmp_path):
    _open(tmp_path, _Options(export=True))
    with pytest.raises(UserError, match=r"--export=False \(was True\)"):
        _open(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"--model": Input("tiny", "99" * 32)}, "--model=tiny, whose contents have changed"),
        ({"--model": Input("big", "99" * 32)}, r"--model=big \(was tiny\)"),
        ({"prompt": Input("compact", "99" * 32)}, "sha256 999999999999, was cdcdcdcdcdcd"),
    ],
)
def test_other_models_data_or_prompts_are_refused(tmp_path, inputs, said):
    _open(tmp_path)
    with pytest.raises(UserError, match=said):
        _open(tmp_path, resume=True, inputs=INPUTS | inputs)
    # The same contents under another name are the same.
    _open(tmp_path, resume=True, inputs=INPUTS | {"--model": Input("copy", "ab" * 32)})


def test_further_inputs_join_the_record(tmp_path):
    _open(tmp_path)
    _open(tmp_path, resume=True, inputs={"--more": Input("x", "12" * 32)})
    with pytest.raises(UserError, match="--more"):
        _open(tmp_path, resume=True, inputs={"--more": Input("x", "34" * 32)})


def test_another_run_needs_overwrite_which_loses_nothing(tmp_path):
    folder = tmp_path / "run"
    _open(folder)
    with pytest.raises(UserError, match="already holds a run. Add --resume.*--overwrite"):
        _open(folder, _Options(seed=1))
    assert not _open(folder, _Options(seed=1), overwrite=True).begun
    assert not _open(folder, _Options(seed=2), overwrite=True).begun
    seeds = {
        path.name: json.loads((path / "run.json").read_text())["options"]["seed"]
        for path in tmp_path.iterdir()
    }
    assert seeds == {"run": 2, "run.old-1": 0, "run.old-2": 1}


def test_a_folder_without_a_run_is_left_as_it_is_by_overwrite(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    _open(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_files_of_another_command_are_refused(tmp_path):
    _open(tmp_path, job="evaluation")
    with pytest.raises(UserError, match="another command .evaluation, not training."):
        _open(tmp_path, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_start_that_came_to_nothing_does_not_count(tmp_path, resume):
    with RunFolder(tmp_path, "training", _Options(seed=7), resume=False) as opened:
        opened.record(INPUTS)
    assert not _open(tmp_path, resume=resume).begun
    assert json.loads((tmp_path / "run.json").read_text())["options"]["seed"] == 0


def test_folders_of_older_versions_are_compared_by_their_flags(tmp_path):
    _open(tmp_path)
    (tmp_path / "run.json").unlink()
    (tmp_path / "flags.txt").write_text("--seed=3\n--rate=0.1\n--gone=1\n--export=False\n")
    with pytest.raises(UserError, match=r"other options: --seed=0 \(was 3\)\."):
        _open(tmp_path, resume=True)
    _open(tmp_path, _Options(seed=3), resume=True)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["options"]["seed"] == 3


def test_another_version_is_told(tmp_path, monkeypatch):
    _open(tmp_path)
    monkeypatch.setattr(run_folder, "__version__", "99.1")
    with pytest.warns(UserWarning, match="begun with version .* resumes with version 99.1"):
        _open(tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b'{"options": 3, "inputs": {}}', b""])
def test_a_damaged_record_is_named(tmp_path, content):
    _open(tmp_path)
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match="run.json.*remove it.*flags.txt are compared"):
        _open(tmp_path, resume=True)


_HOLDER = """
import sys, time, pathlib
from memr1_jax.run.lock import hold
hold(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def _holder(folder):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_refused_while_another_process_has_it(tmp_path):
    process = _holder(tmp_path)
    try:
        for given in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError) as error:
                _open(tmp_path, **given)
            said = str(error.value)
            assert f"{tmp_path} is in use by another run: process {process.pid} on " in said
            assert " since 20" in said and str(tmp_path) in said.split("since")[1]
        assert os.listdir(tmp_path) == ["run.lock"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # The kernel frees it, whatever the process left.
    _open(tmp_path)
    assert not (tmp_path / "run.lock").exists()


def test_a_process_has_a_folder_once_and_gives_it_free(tmp_path):
    lock.hold(tmp_path)
    lock.hold(tmp_path)
    lock.release(tmp_path)
    lock.release(tmp_path)
    _holder(tmp_path).kill()


def test_without_locks_a_warning_says_so(tmp_path, monkeypatch):
    import fcntl

    def fail(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.warns(UserWarning, match="run.lock cannot be locked .*not supported"):
        lock.hold(tmp_path)
    lock.release(tmp_path)


def test_setting_aside_never_replaces(tmp_path):
    for expected in ("f.old-1", "f.old-2"):
        (tmp_path / "f").write_text("x")
        assert set_aside(tmp_path / "f").name == expected


def test_the_home_of_an_unknown_user_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMR1_CACHE", "~nosuchuser/cache")
    for use in (
        lambda: _open("~nosuchuser/run"),
        lambda: Checkpoints("~nosuchuser/run"),
        cache_folder,
    ):
        with pytest.raises(UserError, match="~nosuchuser.*the home of an unknown user"):
            use()


def test_a_user_without_a_home_has_runs_too(tmp_path, monkeypatch):
    """As in a container whose user has no entry."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    _open(tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"options": []},
        {"inputs": None},
        {"inputs": {"--model": {"name": "nano", "digest": 0}}},
        {"inputs": {"--model": {"name": "nano"}}},
        {"inputs": {"--model": {"name": ["nano"], "digest": "12"}}},
    ],
)
def test_a_record_with_values_of_other_types_is_refused_in_a_sentence(tmp_path, changes):
    _open(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match="this is no record of a run .*was damaged"):
        _open(tmp_path, resume=True)
