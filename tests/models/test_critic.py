"""The critic: values at the right positions, without an output head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_decoder import CONFIGS, random_chain, random_params

from memr1_jax.models.critic import init_critic, response_values
from memr1_jax.models.decoder import Block, Decoder

SIZES = {"instruction": 2, "prompt": 3, "response": 3, "prompts": 2, "group": 2}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    decoder = Decoder(CONFIGS[request.param], remat="none")
    params = random_params(CONFIGS[request.param])
    critic = init_critic(params, jax.random.key(0), CONFIGS[request.param].model_width)
    critic["value_head"]["bias"] += 0.25
    return decoder, params, critic


def test_values_are_read_before_each_token(model):
    decoder, params, critic = model
    chain = random_chain(np.random.default_rng(0), **SIZES)
    values = jax.jit(lambda critic: response_values(decoder, critic, chain))(critic)
    assert values.shape == (2, 2, 3) and values.dtype == jnp.float32

    lengths = [np.asarray(block.length) for block in chain]
    rows, starts = np.zeros((2, 2, 8), np.int32), np.zeros((2, 2), int)
    for b, g in np.ndindex(2, 2):
        above = [
            *chain[0].tokens[: lengths[0]],
            *chain[1].tokens[b, : lengths[1][b]],
        ]
        starts[b, g] = len(above)
        row = [*above, *chain[2].tokens[b, g]]
        rows[b, g, : len(row)] = row
    (hidden,) = jax.jit(
        lambda params: decoder.apply({"params": params}, (Block(rows, jnp.full((2, 2), 8)),))
    )(params)
    plain = hidden @ critic["value_head"]["kernel"] + 0.25
    for b, g in np.ndindex(2, 2):
        count = max(int(lengths[2][b, g]), 1)
        expected = plain[b, g, starts[b, g] - 1 :][:count]
        np.testing.assert_allclose(values[b, g, :count], expected, rtol=1e-4, atol=1e-5)


def test_a_critic_is_the_policy_without_its_output_head(model):
    _, params, critic = model
    assert critic["decoder"].keys() == params.keys() - {"head"}
    for name, part in critic["decoder"].items():
        jax.tree.map(np.testing.assert_array_equal, part, params[name])
        pairs = zip(jax.tree.leaves(part), jax.tree.leaves(params[name]), strict=True)
        # Both networks are trained in place, so neither may hold arrays of the other.
        pointers = [(x.unsafe_buffer_pointer(), y.unsafe_buffer_pointer()) for x, y in pairs]
        assert all(first != second for first, second in pointers)
    kernel = critic["value_head"]["kernel"]
    assert kernel.shape == (32,) and 0 < np.abs(kernel).max() < 0.2
