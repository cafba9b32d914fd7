"""Splash attention and causal rows against XLA's own attention, and the choice between them.

The TPU kernel's arithmetic is computed here by JAX's interpreter.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from small_decoder import CONFIG, random_block, random_params

from memr1_jax.errors import UserError
from memr1_jax.models import attention_kernels, splash
from memr1_jax.models.attention import Projected, attend
from memr1_jax.models.attention_kernels import attend_chain, choose_kernel
from memr1_jax.models.causal_rows import attend_causally
from memr1_jax.models.decoder import Decoder
from memr1_jax.parallel.mesh import AXES

HEADS, KV_HEADS, SIZE = 4, 2, 64
# Leading axes of each block of a chain, its length, and how much of each row is real; then how many
# of the first blocks were computed before, so that they are only keys.
PROMPTS, RESPONSES = ((2,), 70, [70, 7]), ((2, 3), 50, [[50, 1, 7], [33, 50, 0]])
CHAINS = {
    "chain": ((((), 5, 4), ((2,), 64, [64, 2]), PROMPTS, RESPONSES), 0),
    "responses": ((((), 5, 5), PROMPTS, RESPONSES), 2),
    "prompts": ((((), 0, 0), ((3,), 140, [140, 1, 129])), 1),
    "short": ((((2,), 30, [30, 7]),), 0),
}


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setattr(splash, "INTERPRET", True)


def make_chain(name, heads=HEADS, size=SIZE):
    draw = np.random.default_rng(0)

    def array(*shape):
        return jnp.asarray(draw.normal(size=shape), jnp.float32)

    blocks, computed = CHAINS[name]
    made = [
        Projected(
            array(*lead, length, heads, size),
            array(*lead, KV_HEADS, length, size),
            array(*lead, KV_HEADS, length, size),
            jnp.asarray(real, jnp.int32),
        )
        for lead, length, real in blocks
    ]
    return made[computed:], made[:computed]


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(form, blocks, above):
    """Returns what real tokens found, and gradients of a weighted sum of it."""

    def weighted(blocks, above):
        found = []
        for output, block in zip(form(blocks, above), blocks, strict=True):
            real = jnp.arange(output.shape[-3]) < block.length[..., None]
            found.append(jnp.where(real[..., None, None], output, 0))
        weights = [jnp.cos(jnp.arange(x.size)).reshape(x.shape) for x in found]
        return sum((x * w).sum() for x, w in zip(found, weights, strict=True)), found

    gradients, found = jax.grad(weighted, (0, 1), has_aux=True, allow_int=True)(blocks, above)
    return found, [(g.query, g.key, g.value) for blocks in gradients for g in blocks]


def by(kernel, blocks, above):
    return attend_chain(kernel, blocks, [block.above for block in above])


def differences(found, expected):
    return [
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        if a.size
    ]


@pytest.mark.parametrize("name", ["chain", "responses", "prompts"])
def test_splash_attention_is_plain_attention(name):
    given = make_chain(name)
    found = value_and_gradients(functools.partial(by, "splash"), *given)
    expected = value_and_gradients(functools.partial(by, "xla"), *given)
    assert max(differences(found, expected)) < 1e-5
    assert min(float(jnp.abs(x).max()) for x in jax.tree.leaves(found[0])) > 0.1


def test_the_whole_chain_but_the_instruction_is_one_call(monkeypatch):
    blocks, _ = make_chain("chain")
    calls = []
    monkeypatch.setattr(splash, "attend_row", lambda *given: calls.append(given) or [])
    attend_chain("splash", blocks, [])
    ((row, above),) = calls
    assert row == blocks[1:]
    assert [source.key.shape[-2] for source in above] == [5]  # the instruction's keys


def test_what_the_kernel_does_not_take_is_left_to_xla():
    def taken(name, **sizes):
        blocks, above = make_chain(name, **sizes)
        return splash.fits(blocks, [block.above for block in above])

    assert taken("responses")
    assert not taken("short")
    assert not taken("chain")  # its instruction has no rows
    assert not taken("responses", size=8)
    mesh = AbstractMesh((1, 1, 4), AXES, axis_types=(AxisType.Auto,) * 3)
    with jax.sharding.use_abstract_mesh(mesh):
        assert not taken("responses")  # two key heads do not lie on four devices


@pytest.fixture(scope="module")
def wide():
    """Returns a decoder of two layers whose heads the kernel takes, its weights and a chain."""
    config = dataclasses.replace(CONFIG, head_size=SIZE)
    rng = np.random.default_rng(1)
    chain = (random_block(rng, (4,), 4), random_block(rng, (2, 130), 60))
    return config, random_params(config), (*chain, random_block(rng, (2, 2, 12), 1))


def test_a_decoder_with_the_kernel_trains_as_without(wide):
    config, params, blocks = wide

    @functools.partial(jax.jit, static_argnums=0)
    def run(kernel, params):
        def loss(params):
            decoder = Decoder(config, remat="dots", kernel=kernel)
            hidden = decoder.apply({"params": params}, blocks)[-1]
            real = jnp.arange(hidden.shape[-2]) < blocks[-1].length[..., None]
            return jnp.sin(jnp.where(real[..., None], hidden, 0)).sum()

        return jax.value_and_grad(loss)(params)

    found, expected = run("splash", params), run("xla", params)
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected[1]))
    assert max(differences(found, expected)) < 1e-5 * max(largest, 1)


def test_prefill_with_the_kernel_is_prefill_without(wide):
    config, params, (instruction, prompt, _) = wide

    @functools.partial(jax.jit, static_argnums=0)
    def run(kernel):
        decoder = Decoder(config, kernel=kernel)
        _, past = decoder.apply({"params": params}, (instruction,), method=Decoder.prefill)
        return decoder.apply({"params": params}, (prompt,), past, method=Decoder.prefill)[0]

    assert max(differences(run("splash"), run("xla"))) < 1e-5


@pytest.mark.parametrize("name", ["chain", "prompts"])
def test_causal_rows_are_plain_attention(name):
    blocks, above = make_chain(name)
    *before, block = (*above, *blocks)[: 2 if above else 3]

    def rows(blocks, above):
        return [attend_causally(blocks[0], [block.above for block in above], "xla")]

    def plain(blocks, above):
        return [attend(blocks[0].query, [*(block.above for block in above), blocks[0].own])]

    found = value_and_gradients(rows, [block], before)
    assert max(differences(found, value_and_gradients(plain, [block], before))) < 1e-5


def test_an_instruction_alone_is_a_causal_row():
    block = make_chain("chain")[0][0]
    found = attend_causally(block, [], "xla")[:4]
    np.testing.assert_allclose(found, attend(block.query, [block.own])[:4], atol=1e-5)


def test_cudnn_computes_instruction_and_prompts_and_xla_the_responses(monkeypatch):
    monkeypatch.setattr(
        attention_kernels,
        "attend_causally",
        lambda block, above, implementation: (implementation, block.query.ndim, len(above)),
    )
    found = attend_chain("cudnn", make_chain("chain")[0], [])
    assert found[:3] == [("cudnn", 3, 0), ("cudnn", 4, 1), ("cudnn", 4, 2)]
    assert found[3].shape == (2, 3, 50, HEADS, SIZE)


@pytest.mark.parametrize(
    ("flag", "dtype", "platform", "kernel"),
    [
        ("auto", jnp.bfloat16, "tpu", "splash"),
        ("auto", jnp.float32, "cpu", "xla"),
        ("auto", jnp.float32, "cuda", "xla"),
        ("xla", jnp.bfloat16, "tpu", "xla"),
        ("auto", jnp.bfloat16, "gpu", "xla"),  # there is none here, so that its call fails
    ],
)
@pytest.mark.filterwarnings("ignore:cuDNN's attention")
def test_the_kernel_follows_flag_and_machine(flag, dtype, platform, kernel):
    assert choose_kernel(flag, dtype, platform) == kernel


@pytest.mark.filterwarnings("ignore:cuDNN's attention")
@pytest.mark.parametrize(
    ("flag", "dtype", "platform", "message"),
    [
        ("splash", jnp.bfloat16, "cpu", "is a kernel for a TPU"),
        ("cudnn", jnp.bfloat16, "tpu", "is a kernel for a GPU"),
        ("cudnn", jnp.float32, "gpu", "--dtype=bfloat16"),
        ("cudnn", jnp.bfloat16, "gpu", "does not run on this machine"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused(flag, dtype, platform, message):
    with pytest.raises(UserError, match=message):
        choose_kernel(flag, dtype, platform)
