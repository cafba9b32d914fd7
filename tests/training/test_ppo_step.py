"""The compiled PPO step: one program for every batch, nothing of the host in it."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import make_tiny, make_training

from memr1_jax.rl.ppo import Optimizers, PPOOptions, create_ppo_state, ppo_update
from memr1_jax.rl.update import create_optimizer
from memr1_jax.training.step import compile_step

AGENTS = ("answer", pytest.param("manager", marks=pytest.mark.slow))
HOST = re.compile(r"callback|infeed|outfeed|\bsend\b|\brecv\b|send-done|recv-done", re.IGNORECASE)
ALGORITHM = PPOOptions(group=2, epochs=2, mini_batches=2, logit_chunk=32)
OPTIMIZERS = Optimizers(create_optimizer(1e-3), create_optimizer(1e-2))


def _state(seed=0):
    params = jax.tree.map(jnp.copy, make_tiny().model.params)
    return create_ppo_state(params, OPTIMIZERS, seed, make_tiny().model.config.model_width)


def _inputs(agent, rows, valid=(True, True)):
    training = make_training(agent)
    rows, valid = jnp.array(rows, jnp.int32), jnp.array(valid)
    return training.frozen, make_tiny().pair.tools, training.data, rows, valid


@functools.cache
def _program(agent):
    """Returns the executable, which refuses arguments of any other shape or type."""
    step = compile_step(ppo_update, make_training(agent).policy, ALGORITHM, OPTIMIZERS)
    return step.lower(_state(), *_inputs(agent, [0, 1])).compile()


@pytest.mark.parametrize("agent", AGENTS)
def test_one_program_without_the_host(agent):
    program = _program(agent)
    lines = re.findall(r"^\s*(?:ROOT )?%?[\w.-]+ = .*", program.as_text(), re.MULTILINE)
    assert len(lines) > 1000
    # Names and source locations may say anything; opcodes and call targets may not.
    bare = [re.sub(r", metadata=\{.*", "", line).split(" = ", 1)[1] for line in lines]
    assert [line for line in bare if HOST.search(line)] == []

    # The state comes back in the form in which it went in, whatever the batch.
    state, _, first = program(_state(), *_inputs(agent, [0, 1]))
    state, _, second = program(state, *_inputs(agent, [2, 3], [True, False]))
    assert not np.array_equal(first.prompt.tokens, second.prompt.tokens)
    assert int(state.step) == 2


@pytest.mark.parametrize("agent", AGENTS)
def test_both_networks_move_and_their_old_arrays_are_donated(agent):
    before, base = _state(), make_tiny().model.params
    after, metrics, _ = _program(agent)(before, *_inputs(agent, [0, 1]))
    drawn = {"reward", "loss", "kl", "sampler_gap", "entropy", "response_length", "truncated"}
    assert drawn <= metrics.keys()
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((before.params, before.critic)))
    fresh = _state()
    for network in ("params", "critic"):
        moved = jax.tree.map(
            lambda new, old: bool(jnp.any(new != old)),
            getattr(after, network),
            getattr(fresh, network),
        )
        assert all(jax.tree.leaves(moved)), network
    jax.block_until_ready(base)  # the base model is still there
    for name, mean in metrics.items():
        assert np.isfinite(float(mean.value())), name


@pytest.mark.parametrize("agent", AGENTS)
def test_the_update_sees_what_the_sampler_did(agent):
    _, metrics, _ = _program(agent)(_state(), *_inputs(agent, [0, 1]))
    assert float(metrics["sampler_gap"].value()) < 1e-4  # also of later mini-batches
    assert abs(float(metrics["kl"].value())) < 1e-4  # the reference is where training starts
    assert float(metrics["loss"].weight) == float(metrics["value_loss"].weight) == 4


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS)
def test_the_same_seed_gives_the_same_bits(agent):
    runs = [_program(agent)(_state(seed=4), *_inputs(agent, [0, 1])) for _ in range(2)]
    for left, right in zip(*map(jax.tree.leaves, runs), strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)
    _, _, other = _program(agent)(_state(seed=5), *_inputs(agent, [0, 1]))
    assert not np.array_equal(other.samples.tokens, runs[0][2].samples.tokens)
