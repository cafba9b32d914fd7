"""Ahead-of-time compilation: with the real TPU compiler where it is installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny_model import CONFIG, GEMMA3, SIZES, options, write_model

from memr1_jax.errors import UserError
from memr1_jax.models.attention import Projected
from memr1_jax.models.attention_kernels import attend_chain
from memr1_jax.parallel.activations import on_mesh
from memr1_jax.parallel.mesh import make_mesh
from memr1_jax.planner.aot import CompileReport, abstract, compile_ahead, topology_devices
from memr1_jax.planner.layout_search import fit_step
from memr1_jax.planner.roofline import Layout

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU's compiler, is missing"
)


@pytest.fixture(autouse=True)
def _no_flags_of_the_cpu(monkeypatch):
    """Removes flags that the TPU's compiler does not know, which would end the process."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def test_a_report_adds_up():
    gib = 2**30
    report = CompileReport("TPU v5 lite", 4, 1.5, 9 * gib, gib, 7 * gib, 0)
    assert report.peak == 17 * gib
    assert "does not fit into the usable 15.750 GiB" in str(report)
    assert "4 x TPU v5 lite in 1.5 s" in str(report)


def test_without_libtpu_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(UserError, match="pip install libtpu"):
        topology_devices("v5e:2x2")


@needs_libtpu
@pytest.mark.slow
def test_an_unknown_topology_is_refused():
    with pytest.raises(UserError, match="--topology=v99:2x2"):
        topology_devices("v99:2x2")


@needs_libtpu
@pytest.mark.slow
def test_a_matrix_product_for_four_chips():
    mesh = make_mesh("fsdp:2,tensor:2", topology_devices("v5e:2x2"))
    x = jnp.zeros((512, 512), jnp.bfloat16)
    x = abstract(x, NamedSharding(mesh, PartitionSpec("fsdp", "tensor")))
    report, compiled = compile_ahead(jax.jit(lambda x: x @ x), (x,))
    assert report.devices == 4
    assert report.arguments == 512 * 512 * 2 // 4
    assert "all-gather" in compiled.as_text()


@needs_libtpu
def test_splash_attention_of_a_chain_for_four_chips():
    """Compiles the kernel, its backward pass too, and finds it in the program."""
    mesh = make_mesh("fsdp:2,tensor:2", topology_devices("v5e:2x2"))

    def block(*lead, length):
        rows = "fsdp" if lead else None
        spec = PartitionSpec(*[rows][: len(lead)])
        shapes = ((*lead, length, 4, 128), *[(*lead, 2, length, 128)] * 2)
        arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
        block = Projected(*arrays, jax.ShapeDtypeStruct(lead, jnp.int32))
        return abstract(block, jax.tree.map(lambda _: NamedSharding(mesh, spec), block))

    def loss(arrays, lengths):
        blocks = [Projected(*given, n) for given, n in zip(arrays, lengths, strict=True)]
        with on_mesh(mesh):
            found = attend_chain("splash", blocks, [])
        return sum(x.astype(jnp.float32).sum() for x in found)

    blocks = [block(length=40), block(4, length=512), block(4, 2, length=200)]
    arguments = [tuple(x[:3]) for x in blocks], [x.length for x in blocks]
    _, compiled = compile_ahead(jax.jit(jax.grad(loss)), arguments)
    text = compiled.as_text()
    for phase in ("fwd", "dq", "dkv"):
        assert f"splash_mha_{phase}_segmented" in text


@pytest.mark.slow
@needs_libtpu
def test_the_step_of_a_small_experiment_for_four_chips():
    """Covers the whole way: shapes, a proposed mesh, the compiler, its report and the roofline."""
    tried = []
    fit = fit_step(options(batch=8, micro_batches=2), "answer", "v5e:2x2", tried.append)
    assert tried == [line for line in tried if line.startswith("trying --mesh=")]
    assert f"{fit.layout}," in tried[0]
    # The model is small compared with its activations: its weights are best held whole everywhere.
    assert fit.layout == Layout(data=4, micro_batches=2)
    assert fit.report.devices == 4
    assert fit.report.temporaries > 0
    assert fit.report.peak < fit.chip.usable
    text = str(fit)
    assert "compiled for 4 x TPU v5 lite" in text
    assert "fits into the usable 15.750 GiB" in text
    phases = ["prefill", "decode", "reference", "old log-probabilities", "update"]
    assert list(fit.seconds()) == phases
    assert all(f"{name}: " in text for name in fit.work)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (CONFIG, {}),
        (CONFIG, {"lora_rank": 4, "algorithm": "ppo", "group": 1}),
        (GEMMA3, {}),  # windows, norms of queries and keys and behind both halves
    ],
    ids=["grpo", "ppo", "gemma3"],
)
def test_the_command_for_both_agents(config, changes, tmp_path):
    folder = write_model(tmp_path / "model", config)
    sizes = {**SIZES, "batch": 8, **changes}
    given = [
        f"--{name}={value}" if not isinstance(value, bool) else f"--{'' if value else 'no'}{name}"
        for name, value in sizes.items()
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tpu_scripts.aot_compile", *given, f"--model={folder}"]
        + ["--topology=v5e:2x2", "--mesh=fsdp:2,tensor:2"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for agent in ("manager", "answer"):
        assert f"{agent}: --mesh=data:1,fsdp:2,tensor:2 --micro_batches=1" in done.stdout
    assert done.stdout.count("fits into the usable 15.750 GiB") == 2


@needs_libtpu
@pytest.mark.slow
def test_a_step_that_is_too_large_says_what_it_needs():
    mesh = make_mesh("data:1", topology_devices("v5e:1x1"))
    x = abstract(jnp.bfloat16(0), NamedSharding(mesh, PartitionSpec()))
    with pytest.raises(UserError, match=r"needs [\d.]+G of 15.75G"):
        compile_ahead(jax.jit(lambda x: jnp.sort(jnp.full((40, 2**28), x), axis=0)), (x,))
