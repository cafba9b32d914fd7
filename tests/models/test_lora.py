"""Adapters: joined to the backbone they compute what the merged kernels compute."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_decoder import CONFIG, CONFIGS, random_block, random_chain, random_params

from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Decoder, empty_cache
from memr1_jax.models.decoder_config import PRESETS
from memr1_jax.models.lora import (
    TARGETS,
    LoRA,
    abstract_adapters,
    init_adapters,
    join,
    merge,
    parse_targets,
)
from memr1_jax.models.sampler import Sampling, generate

FULL = LoRA(rank=3, alpha=6.0)
OFTEN = ("query", "down")  # alone, one of each part of a layer
CASES = [(name, FULL.targets) for name in CONFIGS] + [
    pytest.param(
        *("untied, bias, scaling", (target,)),
        marks=[] if target in OFTEN else pytest.mark.slow,
    )
    for target in TARGETS
]


def random_adapters(config, lora, seed=1):
    """Adapters with random A and B, as after training."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype),
        abstract_adapters(config, lora),
    )


def logits_of_responses(decoder, params, blocks):
    """Logits `[B, G, R, V]` of the responses, as in training."""

    def run(module, blocks):
        return module.logits(module(blocks)[-1])

    return decoder.apply({"params": params}, blocks, method=run)


chain_logits = jax.jit(logits_of_responses, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def decoded_logits(decoder, params, blocks):
    """Logits `[B, R, V]` of one response `[B, R]`, by prefill and decoding."""
    *above, response = blocks
    apply = partial(decoder.apply, {"params": params})
    _, past = apply(tuple(above), method=Decoder.prefill)
    lead, length = response.tokens.shape[:-1], response.tokens.shape[-1]

    def step(cache, inputs):
        hidden, cache = apply(inputs[0], past, cache, inputs[1], method=Decoder.decode)
        return cache, apply(hidden, method=Decoder.logits)

    cache = empty_cache(decoder.config, lead, length, decoder.dtype)
    inputs = (jnp.moveaxis(response.tokens, -1, 0), jnp.arange(length))
    return jnp.moveaxis(jax.lax.scan(step, cache, inputs)[1], 0, -2)


def assert_close(actual, expected, tolerance=1e-5):
    """Checks that entries are not all zero, and differences small compared with the largest."""
    actual, expected = np.asarray(actual, np.float32), np.asarray(expected, np.float32)
    size = np.abs(expected).max()
    assert size > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("name, targets", CASES)
def test_join_computes_what_merge_computes(name, targets):
    config, lora = CONFIGS[name], dataclasses.replace(FULL, targets=targets)
    params, adapters = random_params(config), random_adapters(config, lora)
    decoder, rng = Decoder(config), np.random.default_rng(2)
    joined, merged = (f(params, adapters, lora.scale) for f in (join, merge))
    chain = random_chain(rng)
    actual = chain_logits(decoder, joined, chain)
    assert_close(actual, chain_logits(decoder, merged, chain))
    assert np.abs(actual - chain_logits(decoder, params, chain)).max() > 0.1
    blocks = (
        random_block(rng, (4,), 0),
        random_block(rng, (2, 6), 1),
        random_block(rng, (2, 5), 5),
    )
    assert_close(decoded_logits(decoder, joined, blocks), decoded_logits(decoder, merged, blocks))


def test_without_b_it_is_the_backbone():
    params = random_params(CONFIG)
    adapters = init_adapters(CONFIG, FULL, jax.random.key(0))
    decoder, chain = Decoder(CONFIG), random_chain(np.random.default_rng(0))
    joined = join(params, adapters, FULL.scale)
    expected = chain_logits(decoder, params, chain)
    np.testing.assert_array_equal(chain_logits(decoder, joined, chain), expected)
    jax.tree.map(np.testing.assert_array_equal, merge(params, adapters, FULL.scale), params)
    for function in (join, merge):
        assert function(params, {}, FULL.scale) is params


@pytest.mark.parametrize(
    "remat", ["dots", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "none"))]
)
def test_gradients_are_those_through_merge(remat):
    config = CONFIGS["untied, bias, scaling"]
    params, adapters = random_params(config), random_adapters(config, FULL)
    chain = random_chain(np.random.default_rng(3))

    @partial(jax.jit, static_argnums=(0, 1))
    def gradient(decoder, combine, adapters):
        def loss(adapters):
            logits = logits_of_responses(decoder, combine(params, adapters, FULL.scale), chain)
            return jax.nn.log_softmax(logits)[..., 7].mean()

        return jax.grad(loss)(adapters)

    actual = gradient(Decoder(config, remat=remat), join, adapters)
    expected = gradient(Decoder(config, remat="none"), merge, adapters)
    jax.tree.map(partial(assert_close, tolerance=1e-4), actual, expected)


def test_training_keeps_little_more_for_adapters():
    params, adapters = random_params(CONFIG), random_adapters(CONFIG, FULL)
    length = 100
    block = random_block(np.random.default_rng(0), (length,), length)

    def kept(complete, variables):
        """Numbers a token that wait for the backward pass."""

        def loss(variables):
            return Decoder(CONFIG).apply({"params": complete(variables)}, (block,))[0].sum()

        _, backward = jax.eval_shape(partial(jax.vjp, loss), variables)
        return sum(x.size for x in jax.tree.leaves(backward) if length in x.shape) / length

    everything = kept(lambda params: params, params)
    alone = kept(lambda adapters: join(params, adapters, FULL.scale), adapters)
    assert alone <= everything + CONFIG.num_layers * len(TARGETS) * FULL.rank


def test_samples_are_those_of_the_merged_weights():
    params, adapters = random_params(CONFIG), random_adapters(CONFIG, FULL)
    rng = np.random.default_rng(4)
    prompts = (random_block(rng, (4,), 1), random_block(rng, (2, 6), 1))

    @jax.jit
    def sample(params, temperature):
        sampling = Sampling(temperature)
        return generate(
            Decoder(CONFIG),
            params,
            prompts,
            jax.random.key(5),
            sampling,
            group=3,
            max_tokens=12,
            stop_tokens=(0,),
        )

    for temperature in (jnp.float32(1.0), jnp.float32(0.0)):
        joined, merged = (
            sample(f(params, adapters, FULL.scale), temperature) for f in (join, merge)
        )
        np.testing.assert_array_equal(joined.tokens, merged.tokens)
        np.testing.assert_array_equal(joined.length, merged.length)
        np.testing.assert_allclose(joined.logprobs, merged.logprobs, atol=1e-4)
        assert (joined.tokens != sample(params, temperature).tokens).any()


@pytest.mark.slow
def test_every_subset_of_targets_has_its_place():
    params, block = random_params(CONFIG), random_block(np.random.default_rng(0), (4,), 4)
    host = jax.tree.map(np.asarray, params)
    for count in range(1, len(TARGETS) + 1):
        for targets in itertools.combinations(TARGETS, count):
            lora = LoRA(2, 4.0, targets)
            adapters = random_adapters(CONFIG, lora)
            layers = adapters["layers"]
            assert {name for part in layers.values() for name in part} == set(targets)
            joined = {"params": join(params, adapters, lora.scale)}
            (shape,) = jax.eval_shape(Decoder(CONFIG).apply, joined, (block,))
            assert shape.shape == (4, CONFIG.model_width)
            merged = merge(host, adapters, lora.scale)["layers"]
            for part in ("attention", "mlp"):
                for name, new in merged[part].items():
                    assert (new is host["layers"][part][name]) == (name not in targets)


def test_adapters_start_as_in_peft():
    config = PRESETS["tiny"]
    adapters = init_adapters(config, LoRA(8, 16.0), jax.random.key(0))["layers"]
    for name, inputs in (("query", (64,)), ("output", (4, 16))):
        leaf = adapters["attention"][name]["lora_a"]
        assert leaf.shape == (2, *inputs, 8) and leaf.dtype == jnp.float32
        assert 0.99 / 8 < np.abs(leaf).max() <= 1 / 8  # sqrt of 64 inputs
        np.testing.assert_allclose(leaf.std(), 1 / 8 / np.sqrt(3), rtol=0.05)
    a = adapters["attention"]["query"]["lora_a"]
    assert (a[0] != a[1]).all()
    assert adapters["mlp"]["down"]["lora_a"].shape == (2, 128, 8)
    assert adapters["attention"]["value"]["lora_b"].shape == (2, 8, 2, 16)
    assert not any(part["lora_b"].any() for part in adapters["mlp"].values())
    alone = init_adapters(config, LoRA(8, 16.0, ("query",)), jax.random.key(0))["layers"]
    np.testing.assert_array_equal(alone["attention"]["query"]["lora_a"], a)


def test_count_of_llama():
    def count(config, lora):
        return sum(leaf.size for leaf in jax.tree.leaves(abstract_adapters(config, lora)))

    # Rank 16 on query [4096 -> 4096] and value [4096 -> 1024] of 32 layers.
    expected = 32 * 16 * (4096 + 4096 + 4096 + 1024)
    lora = LoRA(16, 32.0, ("query", "value"))
    assert count(PRESETS["llama-3.1-8b"], lora) == expected
    assert count(PRESETS["llama-3.1-8b"], LoRA(16, 32.0)) == 41_943_040


@pytest.mark.parametrize("place", [jnp.asarray, np.asarray], ids=["device", "host"])
def test_merge_by_hand(place):
    kernel = np.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]], np.float32)
    a = np.array([[[1.0], [2.0]], [[0.0], [1.0]]], np.float32)
    b = np.array([[[3.0, 5.0]], [[7.0, 9.0]]], np.float32)
    adapters = {"up": {"lora_a": a, "lora_b": b}}
    params = {"up": {"kernel": place(kernel), "bias": 1}, "down": 2}
    merged = merge(params, adapters, 0.5)
    expected = [[[2.5, 4.5], [6.0, 9.0]], [[5.0, 6.0], [10.5, 12.5]]]
    np.testing.assert_array_equal(merged["up"]["kernel"], expected)
    assert isinstance(merged["up"]["kernel"], type(place(kernel)))
    np.testing.assert_array_equal(params["up"]["kernel"], kernel)
    assert (merged["up"]["bias"], merged["down"]) == (1, 2)


def test_a_bfloat16_backbone_keeps_float32_adapters():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_params(CONFIG))
    adapters = random_adapters(CONFIG, FULL)
    joined = join(half, adapters, FULL.scale)["layers"]["mlp"]["gate"]
    assert joined["kernel"] is half["layers"]["mlp"]["gate"]["kernel"]
    assert {joined["lora_a"].dtype, joined["lora_b"].dtype} == {jnp.dtype("float32")}

    block = random_block(np.random.default_rng(6), (4,), 4)

    def loss(adapters):
        decoder = Decoder(CONFIG, jnp.bfloat16)
        return logits_of_responses(decoder, join(half, adapters, FULL.scale), (block,)).mean()

    gradient = jax.jit(jax.grad(loss))(adapters)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))

    merged = merge(half, adapters, FULL.scale)["layers"]["mlp"]["gate"]["kernel"]
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    expected = merge(wide, adapters, FULL.scale)["layers"]["mlp"]["gate"]["kernel"]
    assert merged.dtype == jnp.bfloat16
    np.testing.assert_array_equal(merged, expected.astype(jnp.bfloat16))


def test_joined_kernels_are_still_checked():
    wide = dataclasses.replace(CONFIG, mlp_width=40)
    params = join(random_params(CONFIG), random_adapters(CONFIG, FULL), FULL.scale)
    block = random_block(np.random.default_rng(0), (4,), 4)
    with pytest.raises(Exception, match="shape"):
        Decoder(wide).apply({"params": params}, (block,))


def test_targets_are_read_from_text():
    assert parse_targets("") == parse_targets("all") == TARGETS
    assert parse_targets("value, query") == ("query", "value")
    assert parse_targets("down") == ("down",)
    for text in ("q_proj", "query,", "query;value"):
        with pytest.raises(UserError, match="Name some of query, key"):
            parse_targets(text)


def test_senseless_adapters_are_refused():
    with pytest.raises(UserError, match="1 or more, not 0"):
        LoRA(0, 1.0)
    with pytest.raises(UserError, match="'head'"):
        LoRA(1, 1.0, ("head",))
    with pytest.raises(UserError, match="none is named"):
        LoRA(1, 1.0, ())
    assert LoRA(rank=16, alpha=8.0).scale == 0.5
