"""Meshes from text: what is read, and what is refused in a sentence."""

import jax
import pytest
from jax.sharding import AxisType

from memr1_jax.errors import UserError
from memr1_jax.parallel.mesh import AXES, make_mesh, parse_mesh
from memr1_jax.parallel.sharded_step import check_batch


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("data:1,fsdp:8,tensor:1", (1, 8, 1)),
        ("tensor:4 , data:2", (2, 1, 4)),
        ("fsdp:-1,tensor:2", (1, -1, 2)),
        ("", (1, 1, 1)),
    ],
)
def test_sizes(text, sizes):
    found = parse_mesh(text)
    assert tuple(found) == AXES
    assert tuple(found.values()) == sizes


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("model:8", "names the axis 'model'"),
        ("fsdp:2,fsdp:4", "gives the axis fsdp twice"),
        ("fsdp:0", "the size '0'"),
        ("fsdp:-2", "the size '-2'"),
        ("fsdp:two", "the size 'two'"),
        ("fsdp", "the size ''"),
        ("data:-1,fsdp:-1", "Only one may be -1"),
    ],
)
def test_refusals_are_sentences(text, part):
    with pytest.raises(UserError) as error:
        parse_mesh(text)
    assert part in str(error.value)
    assert f"--mesh={text}" in str(error.value)


def test_a_mesh_is_sharded_by_the_compiler():
    mesh = make_mesh("fsdp:-1", jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize("text", ["fsdp:2", "fsdp:-1,tensor:2"])
def test_a_mesh_must_fit_the_devices(text):
    with pytest.raises(UserError, match="does not fit 1 devices"):
        make_mesh(text, jax.devices()[:1])


def test_micro_batches_must_divide_over_the_devices():
    mesh = jax.sharding.AbstractMesh((2, 4, 2), AXES)
    check_batch(mesh, batch=64, micro_batches=8)
    check_batch(mesh, batch=64, micro_batches=2, mini_batches=4)
    for batch, micro, mini, smallest in ((64, 16, 1, 128), (12, 1, 1, 8), (64, 7, 1, 56)):
        with pytest.raises(UserError, match=f"multiple of {micro} x 8 = {smallest},"):
            check_batch(mesh, batch, micro, mini)
    with pytest.raises(UserError, match="--mini_batches=4 of --micro_batches=4 does not divide"):
        check_batch(mesh, batch=64, micro_batches=4, mini_batches=4)
