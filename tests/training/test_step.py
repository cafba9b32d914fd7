"""The compiled step: one program, nothing of the host in it, the same every time."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import compile_training, first_step, make_tiny

AGENTS = ("answer", "manager")
HOST = re.compile(r"callback|infeed|outfeed|\bsend\b|\brecv\b|send-done|recv-done", re.IGNORECASE)


@functools.cache
def _second(*agent):
    """Runs another step on the state of the first, the second row of which is padding."""
    training = compile_training(*agent)
    return training.run(first_step(*agent).copy(), [1, 0], [True, False])


def _equal(first, second):
    for left, right in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "agent",
    [
        *[(agent,) for agent in AGENTS],
        pytest.param(("manager", "terminal"), marks=pytest.mark.slow),
        pytest.param(("manager", "branches"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_one_program_without_the_host(agent):
    training = compile_training(*agent)
    text = training.step.as_text()
    instructions = re.findall(r"^\s*(?:ROOT )?%?[\w.-]+ = .*", text, re.MULTILINE)
    assert len(instructions) > 1000
    # Names and source locations may say anything; opcodes and call targets may not.
    bare = [re.sub(r", metadata=\{.*", "", line).split(" = ", 1)[1] for line in instructions]
    assert [line for line in bare if HOST.search(line)] == []

    # The state comes back in the form in which it went in, whatever the batch.
    first, second = first_step(*agent).rollout, _second(*agent)[2]
    assert not np.array_equal(first.prompt.tokens, second.prompt.tokens)


def test_the_search_for_the_host_finds_a_callback():
    def loud(x):
        jax.debug.callback(lambda value: None, x)
        return x + 1

    assert HOST.search(jax.jit(loud).lower(jnp.ones(3)).compile().as_text())


@pytest.mark.parametrize("agent", AGENTS)
def test_the_state_is_donated(agent):
    step = first_step(agent)
    donated = step.before.params, step.before.opt_state
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))
    assert int(step.state.step) == 1
    jax.block_until_ready(make_tiny().model.params)  # the base model is still there


@pytest.mark.parametrize("agent", AGENTS)
def test_the_same_seed_gives_the_same_bits(agent):
    training = compile_training(agent)
    first = first_step(agent)
    state, *results = training.run(training.state(), [0, 1])
    _equal((state, *results), (first.state, first.metrics, first.rollout))
    _equal(training.run(state, [1, 0], [True, False]), _second(agent))
    _, _, other = training.run(training.state(seed=5), [0, 1])
    assert not np.array_equal(other.samples.tokens, first.rollout.samples.tokens)


@pytest.mark.parametrize("agent", AGENTS)
def test_each_step_draws_its_own_samples(agent):
    training = compile_training(agent)
    later = training.state().replace(step=jnp.int32(1))
    drawn = [first_step(agent).rollout, training.run(later, [0, 1])[2]]
    np.testing.assert_array_equal(drawn[0].prompt.tokens, drawn[1].prompt.tokens)
    assert not np.array_equal(drawn[0].samples.tokens, drawn[1].samples.tokens)
    tokens = drawn[0].samples.tokens
    assert not np.array_equal(tokens[:, 0], tokens[:, 1])  # nor does a group repeat itself


@pytest.mark.parametrize("agent", AGENTS)
def test_what_the_page_of_a_run_draws_is_a_metric(agent):
    rollout = first_step(agent).rollout
    metrics = {name: float(mean.value()) for name, mean in first_step(agent).metrics.items()}
    assert metrics["reward"] == pytest.approx(float(rollout.rewards.mean()), abs=1e-6)
    lengths = np.asarray(rollout.samples.length)
    assert metrics["response_length"] == pytest.approx(lengths.mean())
    assert metrics["truncated"] == pytest.approx(1 - rollout.samples.stopped.mean())
    assert {"loss", "kl", "sampler_gap", "labelled"} <= metrics.keys()
    # The entropy is logged without a bonus for it; a sample's mean surprise estimates it.
    inside = np.arange(rollout.samples.tokens.shape[-1]) < lengths[..., None]
    surprise = -np.asarray(rollout.samples.logprobs)[inside].mean()
    assert metrics["entropy"] == pytest.approx(surprise, rel=0.3)
    if agent == "manager":
        assert metrics["invalid"] == 0  # decoding is constrained
        operations = sum(metrics[name] for name in ("add", "update", "delete", "none"))
        assert operations >= 1 - metrics["skipped"]
        assert 0 <= metrics["bank_size"] <= make_tiny().options.bank_capacity


@pytest.mark.parametrize("agent", AGENTS)
def test_the_update_sees_what_the_sampler_did(agent):
    state, metrics = first_step(agent).state, first_step(agent).metrics
    assert float(metrics["sampler_gap"].value()) < 1e-4
    assert abs(float(metrics["kl"].value())) < 1e-4  # the reference is where training starts
    for name, mean in metrics.items():
        assert np.isfinite(float(mean.value())), name
    moved = jax.tree.map(
        lambda new, old: bool(jnp.any(new != old)), state.params, make_tiny().model.params
    )
    assert all(jax.tree.leaves(moved))
