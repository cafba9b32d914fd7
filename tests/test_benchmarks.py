"""The comparison with other libraries: its table from scripted systems, and our own step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# Says what a system took: twice as long with a micro-batch of all prompts as with one of one.
SCRIPTED = """#!/bin/sh
case "$*" in
  *trl_grpo.py*) echo "Traceback" >&2; echo "ValueError: no such shape" >&2; exit 1 ;;
  *tunix_grpo.py*--remat=BLOCK*) kill -9 $$ ;;
  *tunix_grpo.py*) seconds=8 ;;
  *) seconds=2 ;;
esac
case "$*" in *--micro=2*) seconds=$((seconds * 2)) ;; esac
echo '{"seconds": 99}'
echo "{\\"summary\\": {\\"seconds\\": $seconds, \\"cpu_seconds\\": $seconds, \\"peak_gib\\": 1.5}}"
"""


def run(*flags, cwd):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "run.py", *flags], capture_output=True, text=True, cwd=cwd
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def venvs(tmp_path):
    for system in ("memr1_jax", "tunix", "trl"):
        python = tmp_path / system / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(SCRIPTED)
        python.chmod(0o755)
    return tmp_path


def test_the_table_has_ratios_and_what_could_not_run(venvs):
    status, text = run(f"--venvs={venvs}", "--shapes=16+8:2x4", "--repeats=2", cwd=venvs)
    assert status == 0, text
    assert "| 16+8:2x4 | memr1_jax | micro 1, remat dots | 2.00 | 2.00 | 1.50 |" in text
    assert (
        "| 16+8:2x4 | tunix | micro 1, remat NONE | 8.00 (4.00x) | 8.00 (4.00x) | 1.50 (1.00x) |"
        in text
    )
    assert "| trl | micro 2, remat none | cannot: ValueError: no such shape |" in text
    assert "tunix {'micro': 1, 'remat': 'BLOCK'}: out of memory" in text
    (found,) = json.loads((venvs / "benchmarks.json").read_text())
    assert [len(runs) for runs in found["runs"].values()] == [2, 2, 1]


def test_a_missing_environment_and_bad_flags_are_named(tmp_path):
    flags = (f"--venvs={tmp_path}", "--shapes=1+1:1x2", "--repeats=1")
    assert "benchmarks/setup.sh" in run(*flags, cwd=tmp_path)[1]
    assert run("--shapes=128", cwd=tmp_path) == (
        1,
        "--shapes: '128' is not of the form 512+64:2x8.\n",
    )
    assert run("--systems=verl", cwd=tmp_path)[0] == 1


def test_our_own_step_runs(tmp_path):
    sizes = ("--model=small", "--prompts=2", "--group=2", "--prompt_length=6", "--steps=2")
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "memr1_jax_grpo.py", *sizes, "--response_length=3"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, summary = map(json.loads, done.stdout.splitlines())
    assert 0 <= first["reward"] <= 1
    assert summary["summary"]["seconds"] == second["seconds"]
    assert summary["summary"]["system"] == "memr1_jax"
