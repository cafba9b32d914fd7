"""A worker, for which this machine stands in; and the commands of the README as they are."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "tpu_scripts" / "README.md"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers run Linux")

# Python of the worker: `-m experiments...` writes down its arguments and does what $FAKE/job says.
PYTHON = f"""#!{sys.executable}
import json, os, signal, sys, time
from pathlib import Path

if sys.argv[1] == "-c":  # the installation looks whether it can import
    sys.exit(0)
fake = Path(os.environ["FAKE"])
with open(fake / "runs_log", "a") as log:
    log.write(json.dumps([os.getcwd(), *sys.argv[1:]]) + "\\n")
print("a line of the log", flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
output = next((x.split("=", 1)[1] for x in sys.argv if x.startswith("--output=")), None)
if output:
    folder = Path(output)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("metrics")
while (what := (fake / "job").read_text().strip()) == "go on":
    time.sleep(0.02)
sys.exit(int(what))
"""
# Python of the machine, with which the installation begins.
SYSTEM_PYTHON = """#!/bin/bash
echo "$*" >> "$FAKE/installed"
if [[ "$*" == "-m uv venv"* ]]; then
    mkdir -p "${@: -1}/bin"
    cp "$FAKE/python" "${@: -1}/bin/python"
fi
"""
GCSFUSE = """#!/bin/bash
echo "$*" >> "$FAKE/mounted"
rmdir "${@: -1}"
ln -s "$FAKE/bucket" "${@: -1}"
"""
MOUNTPOINT = """#!/bin/bash
[[ -L "${@: -1}" ]]
"""


def _program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def machine(tmp_path):
    """Yields a machine with stand-ins, the home of a worker, and a bucket."""
    source = Path(__file__).with_name("fake_gcloud.py").read_text()
    _program(tmp_path / "bin" / "gcloud", f"#!{sys.executable}\n{source}")
    _program(tmp_path / "bin" / "python3", SYSTEM_PYTHON)
    _program(tmp_path / "bin" / "gcsfuse", GCSFUSE)
    _program(tmp_path / "bin" / "mountpoint", MOUNTPOINT)
    _program(tmp_path / "python", PYTHON)
    (tmp_path / "bucket").mkdir()
    (tmp_path / "worker").mkdir()
    (tmp_path / "job").write_text("go on")
    yield tmp_path
    (tmp_path / "job").write_text("0")  # let runs end
    deadline = time.monotonic() + 120
    while _running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)


def _running(machine):
    return any(
        not (path.parent / "end").exists() for path in machine.glob("worker*/memr1_jax_jobs/*/pid")
    )


def _environment(machine):
    return os.environ | {
        "PATH": f"{machine / 'bin'}:{os.environ['PATH']}",
        "FAKE": str(machine),
        "TMPDIR": str(machine),
    }


def _worker(machine, *words, status=0):
    done = subprocess.run(
        ["bash", str(machine / "worker" / "memr1_jax" / "tpu_scripts" / "worker.sh"), *words],
        env=_environment(machine) | {"HOME": str(machine / "worker")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    return done.stdout.strip() if status == 0 else done.stderr.strip()


def _until(machine, wanted):
    deadline = time.monotonic() + 120
    while (found := _worker(machine, "status", "first")) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.fixture
def installed(machine):
    scripts = machine / "worker" / "memr1_jax" / "tpu_scripts"
    scripts.mkdir(parents=True)
    shutil.copy(ROOT / "tpu_scripts" / "worker.sh", scripts)
    _program(machine / "worker" / "memr1_jax_venv" / "bin" / "python", PYTHON)
    return machine


def _log(machine):
    return [json.loads(line) for line in (machine / "runs_log").read_text().splitlines()]


def test_a_job_runs_in_the_background_and_is_done(installed):
    assert _worker(installed, "status", "first") == "none"
    assert _worker(installed, "start", "first", "-", "-m", "x", "--a=it's here").startswith("start")
    assert _worker(installed, "status", "first") == "running"
    refusal = _worker(installed, "start", "first", "-", "-m", "x", status=2)
    assert "Error: The run first is already running on" in refusal
    (installed / "job").write_text("0")
    _until(installed, "done")
    assert _log(installed) == [[str(installed / "worker/memr1_jax"), "-m", "x", "--a=it's here"]]
    # Another start continues the same log.
    _worker(installed, "start", "first", "-", "-m", "x", "--resume")
    _until(installed, "done")
    log = installed / "worker/memr1_jax_jobs/first/log"
    assert log.read_text().count("a line of the log") == 2


def test_a_job_that_fails_says_with_which_status(installed):
    (installed / "job").write_text("2")
    _worker(installed, "start", "first", "-", "-m", "x")
    _until(installed, "failed 2")


def test_a_job_that_ends_while_it_is_looked_at_is_done(installed):
    job = installed / "worker/memr1_jax_jobs/first"
    job.mkdir(parents=True)
    (job / "pid").write_text("1")
    _program(installed / "bin" / "grep", f"#!/bin/bash\necho done >{job}/end\nexit 1\n")
    assert _worker(installed, "status", "first") == "done"


def test_a_job_that_is_stopped_is_not_done(installed):
    _worker(installed, "start", "first", "-", "-m", "x")
    deadline = time.monotonic() + 120
    while not (installed / "runs_log").exists():  # it handles signals shortly after
        assert time.monotonic() < deadline
        time.sleep(0.02)
    _worker(installed, "stop", "first")
    _until(installed, "stopped")
    assert "is not running" in _worker(installed, "stop", "first", status=2)


def test_a_job_that_was_killed_is_lost(installed):
    _worker(installed, "start", "first", "-", "-m", "x")
    pid = int((installed / "worker/memr1_jax_jobs/first/pid").read_text())
    os.killpg(pid, 9)
    _until(installed, "lost")
    _worker(installed, "start", "first", "-", "-m", "x")
    assert _worker(installed, "status", "first") == "running"


def test_a_job_needs_an_installation(installed):
    shutil.rmtree(installed / "worker/memr1_jax_venv")
    refusal = _worker(installed, "start", "first", "-", "-m", "x", status=2)
    assert "Run install.sh first." in refusal
    assert "knows install, start, status and stop, not 'go'" in _worker(
        installed, "go", "first", status=2
    )


def _commands():
    """Returns the six commands at the start of the README."""
    block = re.search(r"```bash\n(.*?)```", README.read_text(), re.S)[1]
    return block.strip().splitlines()


def _launch(machine, command, status=0):
    done = subprocess.run(
        ["bash", "-c", command.replace("tpu_scripts/", f"{ROOT}/tpu_scripts/", 1)],
        env=_environment(machine),
        cwd=machine,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    return done


def test_from_nothing_to_results_in_the_six_commands_of_the_readme(machine):
    create, install, run, resume, fetch, delete = _commands()
    (machine / "states").write_text("!NOT_FOUND\nACTIVE\n")
    _launch(machine, create + " --interval=0")
    _launch(machine, install)
    assert (machine / "worker/memr1_jax/experiments/locomo_grpo.py").is_file()
    assert not (machine / "worker/memr1_jax/.git").exists()
    installed = (machine / "installed").read_text()
    assert f"--editable={machine}/worker/memr1_jax[tpu]" in installed
    _launch(machine, run)
    assert "my-bucket" in (machine / "mounted").read_text()
    flags = [
        *("-m", "experiments.locomo_grpo", "--flagfile=experiments/flags/llama31_8b_grpo.flags"),
        *("--output=../memr1_jax_runs/llama31_8b_grpo", "--distributed=auto"),
    ]
    code = str(machine / "worker/memr1_jax")

    # The TPU is taken away, with its disk and all that runs there.
    deadline = time.monotonic() + 120
    while not (machine / "bucket/llama31_8b_grpo/metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job = machine / "worker/memr1_jax_jobs/llama31_8b_grpo"
    os.killpg(int((job / "pid").read_text()), 9)
    (machine / "worker").rename(machine / "gone")
    (machine / "worker_again").mkdir()
    (machine / "states").write_text("SUSPENDED\nPROVISIONING\nACTIVE\n")
    (machine / "job").write_text("0")
    said = _launch(machine, resume + " --interval=0").stderr
    assert "was taken away (SUSPENDED)" in said
    assert "The run llama31_8b_grpo is complete." in said
    assert _log(machine) == [[code, *flags], [code, *flags, "--resume"]]

    _launch(machine, fetch)
    assert (machine / "runs/llama31_8b_grpo/metrics.jsonl").read_text() == "metrics"
    _launch(machine, delete)
    assert "delete" in (machine / "log").read_text().splitlines()[-1]


def test_results_of_one_worker_come_without_a_bucket(installed):
    (installed / "job").write_text("0")
    _worker(installed, "start", "first", "-", "-m", "x", "--output=../memr1_jax_runs/first")
    _until(installed, "done")
    place = "--name=memr1 --zone=z --project=p"
    _launch(installed, f"tpu_scripts/fetch.sh {place} --output=first")
    assert (installed / "runs/first/metrics.jsonl").is_file()
    assert not (installed / "runs/first/checkpoints").exists()
    assert not list((installed / "runs").glob("*.tar.gz"))
    _launch(installed, f"tpu_scripts/fetch.sh {place} --output=first --checkpoints")
    assert (installed / "runs/first/checkpoints").is_dir()
