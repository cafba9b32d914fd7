"""A run that is killed ten times, or asked to stop, ends with the bits of one that never was."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_model import SIZES, tiny_folder

from memr1_jax.run.checkpoints import Checkpoints
from memr1_jax.run.metrics_log import read_metrics

ROOT = Path(__file__).parents[2]
STEPS, EVERY = 40, 2
FLAGS = SIZES | {
    "agent": "answer",
    "bank_builder": "add_all",
    "answer_steps": STEPS,
    "checkpoint_every": EVERY,
    "evaluate": False,
    "export": False,
}
# Where the ten kills fall; how long after its moment begins, chance decides.
MOMENTS = ["compiling"] + ["starting"] * 2 + ["in a step"] * 4 + ["saving"] * 3
PATIENCE = 600


def _start(output, cache, log, **flags):
    """Starts the command line as a process; its output goes to the file `log`."""
    flags = FLAGS | {"model": str(tiny_folder()), "output": output} | flags
    command = [sys.executable, "-m", "experiments.locomo_grpo"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with open(log, "w") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)


def _finish(output, cache, log, **flags):
    process = _start(output, cache, log, **flags)
    try:
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
    return log.read_text()


def _until(happened, process, log):
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, f"The run ended before it was killed: {log.read_text()}"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _logged(folder):
    """Steps in the log of a run that may be writing it."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _complete(folder):
    """Steps of the complete checkpoints, by name alone: orbax writes under another one."""
    steps = folder / "checkpoints" / "answer"
    return sorted(int(path.name) for path in steps.glob("*") if path.name.isdigit())


def _metrics(folder):
    clocks = ("seconds", "tokens_per_second")
    return [
        {name: value for name, value in record.items() if name not in clocks}
        for record in read_metrics(folder / "metrics.jsonl")
    ]


def _final_state(folder):
    """Returns all arrays of the last checkpoint: parameters, moments, key and step."""
    import orbax.checkpoint as ocp

    with Checkpoints(folder / "checkpoints" / "answer", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == STEPS
    path = folder / "checkpoints" / "answer" / str(STEPS) / "state"
    state = ocp.StandardCheckpointHandler().restore(path, args=ocp.args.StandardRestore())
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(name): np.asarray(_numbers(leaf)) for name, leaf in leaves}


def _numbers(leaf):
    typed = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if typed else leaf


def _assert_same_end(folder, whole):
    expected, found = _final_state(whole), _final_state(folder)
    assert expected.keys() == found.keys() and len(expected) > 20
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes(), name
    assert [record["step"] for record in _metrics(whole)] == list(range(1, STEPS + 1))
    assert _metrics(folder) == _metrics(whole)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Returns the folder of a run that nothing happens to, and the cache that it leaves."""
    folder = tmp_path_factory.mktemp("whole")
    _finish(folder / "run", folder / "cache", folder / "log")
    return folder / "run", folder / "cache"


def _begun(moment, folder, draw, process, log):
    """Waits until the moment has begun, and says after how many seconds more it is hit."""
    if moment == "starting":
        return draw.uniform(0.2, 6.0)
    # The flags are written when all is ready for the first step, which is then compiled.
    if moment == "compiling":
        _until((folder / "flags.txt").exists, process, log)
        return draw.uniform(0.5, 3.0)
    # Steps beyond the last checkpoint are taken back first, and then done again.
    begin = (_complete(folder) or [0])[-1]
    _until(lambda: _logged(folder) <= begin, process, log)
    if moment == "in a step":
        more = draw.randint(3, 6)
        _until(lambda: _logged(folder) >= begin + more, process, log)
        return draw.uniform(0.0, 0.1)
    more, saving = EVERY * draw.randint(2, 3), folder / "checkpoints" / "answer"
    _until(lambda: _logged(folder) >= begin + more and any(saving.glob("*tmp*")), process, log)
    return draw.uniform(0.0, 0.01)


@pytest.mark.slow
def test_ten_kills_leave_no_trace(uninterrupted, tmp_path, capsys):
    whole, cache = uninterrupted
    seed = 20250819
    draw = random.Random(seed)
    moments = MOMENTS[1:]
    draw.shuffle(moments)
    folder, log = tmp_path / "run", tmp_path / "log"
    rows, deaths, torn = [], 0, 0
    for kill, moment in enumerate(MOMENTS[:1] + moments, start=1):
        # Only the first has something to compile, in a cache of its own.
        began = time.monotonic()
        process = _start(folder, tmp_path / "cold" if kill == 1 else cache, log, resume=True)
        try:
            time.sleep(_begun(moment, folder, draw, process, log))
            process.send_signal(signal.SIGKILL)
            seconds = time.monotonic() - began
            deaths += process.wait(PATIENCE) == -signal.SIGKILL
        finally:
            process.kill()
            process.wait()
        torn += moment == "saving" and any((folder / "checkpoints" / "answer").glob("*tmp*"))
        if moment == "compiling":
            assert _logged(folder) == 0
        rows.append((kill, moment, seconds, _logged(folder), (_complete(folder) or ["none"])[-1]))
    _finish(folder, cache, log, resume=True)

    with capsys.disabled():
        print(f"\nTen kills of a run of {STEPS} steps, a checkpoint every {EVERY}, seed {seed}:\n")
        print("| kill | moment | seconds after start | steps logged | last complete checkpoint |")
        print("|---:|---|---:|---:|---:|")
        for kill, moment, seconds, steps, last in rows:
            print(f"| {kill} | {moment} | {seconds:.2f} | {steps} | {last} |")
    assert deaths == 10, "a run ended before it was killed"
    assert torn, "no kill fell into a save"
    assert rows[-1][3] < STEPS
    _assert_same_end(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(uninterrupted, tmp_path, number):
    whole, cache = uninterrupted
    folder, log = tmp_path / "run", tmp_path / "log"
    process = _start(folder, cache, log)
    try:
        _until(lambda: _logged(folder) >= 7, process, log)
        process.send_signal(number)
        asked = time.monotonic()
        assert process.wait(PATIENCE) == 0, log.read_text()
        seconds = time.monotonic() - asked
    finally:
        process.kill()
    assert seconds < 30
    (said,) = re.findall(r".*Saved.*--resume.*", log.read_text())
    steps = _logged(folder)
    assert 7 <= steps < STEPS and f"Saved step {steps} " in said
    assert _complete(folder)[-1] == steps
    assert "Traceback" not in log.read_text()
    _finish(folder, cache, log, resume=True)
    _assert_same_end(folder, whole)
