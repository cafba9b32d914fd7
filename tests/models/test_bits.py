"""Bfloat16 as integers: the same bits, and nothing else where a CPU scans over layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_decoder import CONFIG, random_block, random_params

from memr1_jax.models.bits import as_bits, as_values
from memr1_jax.models.decoder import Decoder, empty_cache
from memr1_jax.parallel.activations import on_mesh
from memr1_jax.parallel.mesh import make_mesh

NARROW = jnp.bfloat16


def test_every_bit_comes_back():
    every = jnp.arange(1 << 16, dtype=jnp.uint32).astype(jnp.uint16)
    values = as_values({"all": every})["all"]
    assert values.dtype == NARROW
    np.testing.assert_array_equal(as_bits(values), every)


def test_other_arrays_are_left_alone():
    tree = (jnp.ones(3), jnp.arange(3), jnp.ones(2, jnp.float16))
    assert all(x is y for x, y in zip(as_bits(tree), tree, strict=True))
    assert all(x is y for x, y in zip(as_values(tree), tree, strict=True))


def test_on_a_mesh_bfloat16_stays_what_it_is():
    with on_mesh(make_mesh("data:1,fsdp:1,tensor:1")):
        made = jax.jit(lambda: as_bits(jnp.ones(2, NARROW)))()
    assert made.dtype == NARROW


def test_no_scan_over_layers_slices_or_updates_bfloat16():
    decoder = Decoder(CONFIG, NARROW)
    params = jax.tree.map(lambda x: x.astype(NARROW), random_params(CONFIG))
    blocks = two_blocks()
    apply = functools.partial(decoder.apply, {"params": params})
    _, past = apply(blocks, method=Decoder.prefill)
    cache = empty_cache(CONFIG, (3,), 6, NARROW)
    assert all(context.key.dtype == NARROW for context in past)
    programs = (
        jax.make_jaxpr(lambda: apply(blocks, method=Decoder.prefill))(),
        jax.make_jaxpr(lambda: apply(blocks[1:], past[:1], method=Decoder.prefill))(),
        jax.make_jaxpr(
            lambda: apply(jnp.zeros(3, int), past, cache, jnp.int32(2), method=Decoder.decode)
        )(),
    )
    for program in programs:
        (scan,) = (e for e in program.jaxpr.eqns if e.primitive.name == "scan")
        assert jnp.dtype(jnp.uint16) in stacked_dtypes(scan)
        assert NARROW not in stacked_dtypes(scan)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_no_backward_pass_keeps_bfloat16_of_layers(remat):
    params = random_params(CONFIG)
    blocks = two_blocks()
    program = jax.make_jaxpr(jax.grad(functools.partial(loss, remat)))(params, blocks)
    scans = [e for e in program.jaxpr.eqns if e.primitive.name == "scan"]
    assert len(scans) == 2  # forward and backward
    for scan in scans:
        assert NARROW not in stacked_dtypes(scan)
        # With "dots" the results of products are kept, rounded.
        assert (jnp.dtype(jnp.uint16) in stacked_dtypes(scan)) == (remat == "dots")


def test_what_the_backward_pass_keeps_changes_no_gradient():
    params = random_params(CONFIG)
    blocks = two_blocks()
    kept, again = (
        jax.jit(jax.grad(functools.partial(loss, remat)))(params, blocks)
        for remat in ("dots", "full")
    )
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(again))
    for x, y in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(x, y, atol=0.01 * largest)


def two_blocks():
    rng = np.random.default_rng(0)
    return random_block(rng, (4,), 4), random_block(rng, (3, 5), 1)


def loss(remat, params, blocks):
    hidden = Decoder(CONFIG, NARROW, remat).apply({"params": params}, blocks)
    return sum((x.astype(jnp.float32) ** 2).sum() for x in hidden)


def stacked_dtypes(scan):
    """Returns the number formats of the arrays of a scan that hold one entry a layer."""
    avals = [v.aval for v in (*scan.invars, *scan.outvars)]
    return {aval.dtype for aval in avals if aval.shape[:1] == (CONFIG.num_layers,)}
