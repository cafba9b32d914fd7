"""Counted operations and bytes against hand-made sums and the compiler's own count."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Block, Decoder, init_params
from memr1_jax.models.decoder_config import PRESETS, DecoderConfig
from memr1_jax.models.logprobs import response_statistics
from memr1_jax.models.lora import LoRA, init_adapters
from memr1_jax.planner import roofline
from memr1_jax.planner.chips import CHIPS, GIB, Chip, chip_of
from memr1_jax.planner.roofline import Layout, Lengths, Work

TINY = PRESETS["tiny"]  # L 2, D 64, N 4, K 2, H 16, F 128, V 512
LENGTHS = Lengths(instruction=2, prompt=3, response=4, prompts=2, group=2)
PLAIN = Layout()
MATRICES = 2 * 2 * (64 * 64 + 64 * 32 + 64 * 32 + 64 * 64 + 3 * 64 * 128)  # a token
PAIR = 4 * 2 * 64  # a query and a key, both layers: scores and mixing, 2 x 64 each
LOGITS = 2 * 64 * 512  # a token


def test_operations_of_a_tiny_chain_counted_by_hand():
    instruction = 2 * MATRICES + PAIR * (1 + 2)
    prompt = 3 * MATRICES + PAIR * (3 + 4 + 5)  # each sees the instruction and itself
    response = 4 * MATRICES + PAIR * (6 + 7 + 8 + 9)
    decoded = 3 * MATRICES + PAIR * (6 + 7 + 8)
    above = instruction + 2 * prompt
    assert roofline.chain_flops(TINY, LENGTHS) == above + 4 * response + 16 * LOGITS
    assert roofline.prefill_flops(TINY, LENGTHS) == above + 4 * LOGITS
    assert roofline.decode_flops(TINY, LENGTHS) == 4 * (decoded + 3 * LOGITS)


@pytest.mark.parametrize(("tokens", "above"), [(2, 0), (5, 0), (4, 1), (4, 2), (4, 7)])
def test_a_window_bounds_what_a_token_sees(tokens, above):
    config = dataclasses.replace(TINY, layer_kinds=("sliding", "full"), window=3)
    seen = [above + 1 + token for token in range(tokens)]
    pairs = sum(seen) + sum(min(count, 3) for count in seen)
    assert roofline.attention_flops(config, tokens, above) == PAIR / 2 * pairs
    whole = roofline.attention_flops(TINY, tokens, above, causal=False)
    assert roofline.attention_flops(config, tokens, above, causal=False) == whole


def test_bytes_of_a_tiny_chain_counted_by_hand():
    weights = 2 * TINY.num_parameters
    token = 2 * 2 * 2 * 2 * 16  # keys and values, 2 bytes, 2 layers, K 2, H 16
    cache = (2 + 2 * 3 + 4 * 4) * token
    assert roofline.cache_bytes(TINY, LENGTHS, PLAIN) == cache
    assert roofline.prefill_work(TINY, LENGTHS, PLAIN).bytes == weights + (2 + 2 * 3) * token
    assert roofline.decode_work(TINY, LENGTHS, PLAIN).bytes == 3 * (weights + cache)
    kept = 2 * 2 * 64 * (2 + 2 * 3 + 4 * 4)
    assert roofline.kept_bytes(TINY, LENGTHS, PLAIN) == kept
    update = roofline.update_work(TINY, LENGTHS, PLAIN)
    assert update.bytes == 4 * weights + (2 + 7) * 4 * TINY.num_parameters + 2 * kept
    assert update.flops == 4 * roofline.chain_flops(TINY, LENGTHS)


def test_a_mesh_divides_what_lies_over_it():
    layout = Layout(data=1, fsdp=2, tensor=2, micro_batches=1)
    token = 2 * 2 * 2 * 1 * 16  # one of two key heads
    assert roofline.cache_bytes(TINY, LENGTHS, layout) == (2 + 3 + 2 * 4) * token
    # The prompt's three tokens do not divide over tensor.
    assert roofline.kept_bytes(TINY, LENGTHS, layout) == 2 * 2 * 64 * (1 + 3 + 2 * 2)
    assert (layout.rows, layout.shards) == (2, 4)
    assert str(layout) == "--mesh=data:1,fsdp:2,tensor:2 --micro_batches=1"
    untied = dataclasses.replace(TINY, tie_embeddings=False)
    assert roofline.weight_bytes(untied) == roofline.weight_bytes(TINY)


def test_adapters_spare_the_gradients_of_kernels():
    adapters = jax.eval_shape(lambda: init_adapters(TINY, LoRA(8, 16.0), jax.random.key(0)))
    size = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    assert roofline.adapter_size(TINY, 8) == size
    full = roofline.update_work(TINY, LENGTHS, PLAIN, remat="none")
    lora = roofline.update_work(TINY, LENGTHS, PLAIN, remat="none", lora_rank=8)
    spared = LENGTHS.tokens * MATRICES + 16 * LOGITS
    assert full.flops - lora.flops == spared - 3 * 2 * size * LENGTHS.tokens
    assert lora.bytes == full.bytes - 9 * 4 * (TINY.num_parameters - size)


@pytest.mark.parametrize("gradient", [False, True])
def test_the_compiler_counts_the_same(gradient):
    """Uses one layer, to show the compiler each operation; it also counts those of no matrix."""
    config = DecoderConfig(256, 1, 256, 4, 2, 64, 1024)
    lengths = Lengths(instruction=8, prompt=16, response=16, prompts=2, group=3)

    def block(*shape):
        return Block(jnp.zeros(shape, jnp.int32), jnp.full(shape[:-1], shape[-1]))

    blocks = (block(8), block(2, 16), block(2, 3, 16))

    def forward(params):
        found = response_statistics(
            Decoder(config, remat="none"), params, blocks, jnp.float32(1), chunk=96
        )
        return found.logprobs.sum()

    function = jax.grad(forward) if gradient else forward
    params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    compiled = jax.jit(function).lower(params).compile()
    counted = roofline.chain_flops(config, lengths, causal=False)
    if gradient:  # logits are computed again
        counted = 3 * counted + roofline.logit_flops(config, 96)
    assert compiled.cost_analysis()["flops"] == pytest.approx(counted, rel=0.05)


def test_seconds_are_those_of_the_scarcer():
    chip = Chip("x", 1, 1, flops=100.0, bandwidth=10.0, interconnect=1.0)
    assert Work(400, 5).seconds(chip, 2) == 2
    assert Work(400, 50).seconds(chip, 2) == 5
    assert Work(1, 2).times(3) == Work(3, 6)


def test_no_program_may_use_more_than_there_is():
    for chip in CHIPS.values():
        assert 0.9 * chip.hbm < chip.usable * chip.devices <= chip.hbm + GIB
    assert chip_of("TPU v5 lite").name == "v5e"
    with pytest.raises(UserError, match="TPU v99"):
        chip_of("TPU v99")
