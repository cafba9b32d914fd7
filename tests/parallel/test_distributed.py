"""Several processes: how they start, and that two give what one gives."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.parallel.distributed import (
    any_process,
    barrier,
    fetch,
    initialize,
    is_main,
    local_rows,
)
from memr1_jax.parallel.mesh import make_mesh

WORKER = Path(__file__).with_name("distributed_worker.py")


def test_one_process_needs_nothing():
    initialize("")
    barrier("here")
    assert is_main() and any_process(True) and not any_process(False)
    rows = local_rows(make_mesh("", jax.devices()[:1]), np.arange(4, dtype=np.int32))
    found = fetch({"rows": rows, "loss": 1.5})
    np.testing.assert_array_equal(found["rows"], np.arange(4))
    assert all(isinstance(leaf, np.ndarray) for leaf in found.values())


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("localhost", 2, 0), "--distributed=localhost is not host:port"),
        ((":8476", 2, 0), "--distributed=:8476 is not host:port"),
        (("localhost:8476", 2, 2), "--process_id=2 does not fit --num_processes=2"),
        (("localhost:8476", 0), "--process_id=0 does not fit --num_processes=0"),
    ],
)
def test_refusals_are_sentences(arguments, part):
    with pytest.raises(UserError, match=part):
        initialize(*arguments)


def test_without_a_cluster_auto_is_refused():
    assert "UserError: --distributed=auto finds no cluster" in errors_of("auto")


def test_a_port_in_use_is_refused():
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    with socket.create_server(("", 0), family=family, dualstack_ipv6=dual) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"cannot listen at --distributed={address} "):
            initialize(address, 2, 0)


def errors_of(address):
    """Returns the errors of `initialize` in a process without devices, outside of any cluster."""
    program = f"from {initialize.__module__} import *; initialize('{address}')"
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    return done.stderr


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    run(two, processes=2)
    run(one, 1, two / "checkpoints")
    report = json.loads((two / "report.json").read_text())
    assert report == {"processes": 2, "devices": 4, "agreed": [False, True, True]}
    found, expected = (dict(np.load(folder / "found.npz")) for folder in (two, one))
    restored = {name: expected.pop(name) for name in list(expected) if name.startswith("restored")}
    assert found.keys() == expected.keys() and len(restored) == 12
    for name, value in expected.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6 * scale, err_msg=name)
    for name, value in restored.items():
        np.testing.assert_array_equal(value, found[name.replace("restored", "params")])


def run(folder, processes, *arguments):
    """Runs the worker in several processes with two or four devices each."""
    folder.mkdir()
    with socket.socket() as found:
        found.bind(("localhost", 0))
        coordinator = f"localhost:{found.getsockname()[1]}" if processes > 1 else ""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    running = [
        subprocess.Popen(
            [sys.executable, WORKER, coordinator, str(processes), str(i), folder, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(processes)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=900)
            told = [line for line in errors.splitlines() if "Gloo" not in line]
            assert process.returncode == 0, "\n".join(told)[-4000:]
    finally:
        for process in running:
            process.kill()
