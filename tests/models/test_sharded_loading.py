"""Weights from safetensors straight onto the devices of a mesh: values, places, host memory."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import golden_models
import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from ml_dtypes import bfloat16
from safetensors.numpy import save_file

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import PRESETS
from memr1_jax.models.hf.folders import write_json
from memr1_jax.models.hf.hf_config import config_to_hf
from memr1_jax.models.hf.hf_tensors import INDEX, find_tensors, read_leaf, slots_of
from memr1_jax.models.hf.hf_weights import load_params, load_sharded
from memr1_jax.parallel.mesh import make_mesh

WORKER = Path(__file__).with_name("loading_worker.py")
MESHES = ("data:8", "fsdp:8", "data:2,fsdp:2,tensor:2")
FILE_BYTES = 500 * 10**6


def run(*arguments, processes=1):
    """Reports of the worker, run in several processes at once."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    with socket.socket() as found:
        found.bind(("localhost", 0))
        coordinator = f"localhost:{found.getsockname()[1]}"
    running = []
    for process in range(processes):
        own = (coordinator, processes, process) if processes > 1 else ()
        command = [sys.executable, WORKER, *map(str, (*arguments, *own))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, env=environment, **pipes))
    reports = []
    for process in running:
        output, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-4000:]
        reports.append(json.loads(output.rsplit("REPORT ", 1)[1]))
    return reports


@pytest.mark.parametrize("name", ["llama_scaled", "qwen2_biased"])
def test_any_part_of_a_leaf_is_read_alone(name, tmp_path):
    golden_models.write_folder(tmp_path, name)
    params, config = load_params(tmp_path)
    tensors, random = find_tensors(tmp_path, config), np.random.default_rng(0)
    leaves = {}
    for tensor, slot in slots_of(config).items():
        leaves.setdefault(slot.leaf, {})[tensor] = slot
    assert len(leaves) == len(jax.tree.leaves(params))
    for path, slots in leaves.items():
        whole = params
        for key in path:
            whole = whole[key]
        for _ in range(20):
            ends = [sorted(random.choice(size + 1, 2, replace=False)) for size in whole.shape]
            index = tuple(slice(int(start), int(stop)) for start, stop in ends)
            part = read_leaf(tensors, slots, index, np.float32)
            np.testing.assert_array_equal(part, whole[index], err_msg=f"{path} {index}")


def test_every_device_of_a_mesh_holds_its_part(tmp_path):
    golden_models.write_folder(tmp_path, "llama_scaled")
    (report,) = run("equal", tmp_path, *MESHES)
    assert report.pop("other") == {"placed": True, "values": True}
    assert report == dict.fromkeys(MESHES, {"placed": True, "values": True, "donated": True})


def test_one_device_is_a_mesh_too(tmp_path):
    golden_models.write_folder(tmp_path, "llama_tied")
    expected, _ = load_params(tmp_path)
    device = jax.devices()[0]
    shardings = jax.tree.map(lambda _: SingleDeviceSharding(device), expected)
    for where in (make_mesh("", [device]), shardings):
        params, _ = load_sharded(tmp_path, where)
        jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_the_same_errors_as_on_the_host(tmp_path):
    golden_models.write_folder(tmp_path, "llama_tied")
    config = json.loads((tmp_path / "config.json").read_text())
    mesh = make_mesh("", jax.devices()[:1])
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 95}))
    with pytest.raises(UserError, match=r"mlp\.\w+_proj\.weight has shape"):
        load_sharded(tmp_path, mesh)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        load_sharded(tmp_path, mesh)


@pytest.fixture(scope="module")
def one_billion(tmp_path_factory):
    """Makes a folder like that of Llama-3.2-1B: 2.5 GB of random bfloat16 in several files."""
    folder = tmp_path_factory.mktemp("one_billion")
    config = PRESETS["llama-3.2-1b"]
    write_json(folder / "config.json", config_to_hf(config, "bfloat16"))
    random, weight_map, tensors = np.random.default_rng(0), {}, {}

    def write():
        name = f"model-{len(set(weight_map.values())) + 1:05}.safetensors"
        save_file(tensors, folder / name)
        weight_map.update(dict.fromkeys(tensors, name))
        tensors.clear()

    for name, slot in slots_of(config).items():
        size = 2 * math.prod(slot.shape)
        if tensors and size + sum(x.nbytes for x in tensors.values()) > FILE_BYTES:
            write()
        bits = np.frombuffer(random.bytes(size), np.uint16) & 0xBFFF  # finite numbers alone
        tensors[name] = bits.view(bfloat16).reshape(slot.shape)
    write()
    write_json(folder / INDEX, {"weight_map": weight_map})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_host_memory_is_that_of_the_largest_file_and_the_local_share(one_billion, dtype, processes):
    largest = max(path.stat().st_size for path in one_billion.glob("*.safetensors"))
    total = PRESETS["llama-3.2-1b"].num_parameters * jax.numpy.dtype(dtype).itemsize
    for report in run("memory", one_billion, "fsdp:8", dtype, processes=processes):
        print(processes, dtype, report, f"largest file {largest}")
        assert report["finite"]
        assert 0 <= report["share"] - total / processes < 0.01 * total  # norms are not split
        assert report["peak"] < 1.3 * (largest + report["share"])
