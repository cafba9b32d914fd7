"""The real step on eight forced CPU devices, in processes of its own."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("mesh_worker.py")
MESHES = ("data:8", "fsdp:8", "tensor:4", "data:2,fsdp:2,tensor:2")
# Weights that are split, in GRPO and in PPO with its critic; two key heads do not divide by four.
SPLIT = {
    "grpo": dict(zip(MESHES, (0, 9, 7, 9), strict=True)),
    "ppo": dict(zip(MESHES, (0, 17, 13, 17), strict=True)),
}
ALGORITHMS, AGENTS = ("grpo", "ppo"), ("answer", "manager")


QUICK = ("moments", "steps grpo answer " + MESHES[-1], "kernel")  # share one process


def report(*arguments):
    """Returns what a job of the worker finds; the quick ones are done together."""
    job = " ".join(arguments)
    return reports(QUICK if job in QUICK else (job,))[job]


@functools.cache
def reports(jobs):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, WORKER, *jobs], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [line[7:] for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    return dict(zip(jobs, map(json.loads, found), strict=True))


def check(algorithm, agent, mesh, together):
    found = report("steps", algorithm, agent, *together)
    assert found["size"] > 1e-4  # there is a gradient to compare
    here = dict(found[mesh])
    assert here.pop("tokens"), "the mesh sampled other tokens"
    assert here.pop("moments"), "moments do not lie where their parameters do"
    assert here.pop("split") == SPLIT[algorithm][mesh]
    assert len(here) == (3 if algorithm == "grpo" else 6)  # losses, gradients and parameters
    assert max(here.values()) < 1e-5, here


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_mesh_gives_what_one_device_gives(algorithm, agent, mesh):
    check(algorithm, agent, mesh, MESHES)


@pytest.mark.parametrize("algorithm", ["grpo", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_mixed_mesh_gives_what_one_device_gives(algorithm):
    check(algorithm, "answer", MESHES[-1], MESHES[-1:])


@pytest.mark.slow
@pytest.mark.parametrize("horizon", ["terminal", "branches"])
def test_episodes_on_a_mesh_give_what_one_device_gives(horizon):
    check("grpo", horizon, "fsdp:8", ("fsdp:8",))


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS)
def test_no_weight_is_gathered_inside_the_decode_loop(agent):
    found = report("loops", agent)
    assert found["gathered_once"] == []
    assert found["left_split"] != []  # else the search is blind


def test_moments_lie_where_their_parameters_do():
    found = report("moments")
    assert found["same"]
    assert found["split"] > 5


def test_a_kernel_on_a_mesh_gives_what_one_device_gives():
    found = report("kernel")
    assert found["divided"]
    assert found["error"] < 1e-6
