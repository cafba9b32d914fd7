"""Supervised fine-tuning as a compiled step: it learns its data, without the host."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import DEMONSTRATED, make_tiny, make_training

from memr1_jax.agents.demonstrations import (
    WithDemonstrations,
    answer_demonstrations,
    manager_demonstrations,
)
from memr1_jax.agents.ingest import add_everything, ingest
from memr1_jax.options import with_options
from memr1_jax.rl.imitation import ImitationOptions, imitation_update
from memr1_jax.rl.update import GRPOOptions, create_optimizer, create_state, update
from memr1_jax.training.build import make_policy
from memr1_jax.training.checks import check_options
from memr1_jax.training.step import Frozen, Policy, compile_step, make_sft_step
from memr1_jax.training.training_data import extractor_data

AGENTS = ("manager", pytest.param("answer", marks=pytest.mark.slow))
HOST = re.compile(r"custom-call.*callback|infeed|outfeed|\bsend\b|\brecv\b", re.IGNORECASE)
STEPS, BATCH = 30, 4


def _tiny():
    return make_tiny(**DEMONSTRATED)


@functools.cache
def _training(agent: str):
    """Returns the step, compiled once, and its arguments after the state but the rows."""
    tiny = _tiny()
    pair, tokenizer = tiny.pair, tiny.model.tokenizer
    shared = (pair.tools, pair.encoder, tokenizer, tiny.conversations)
    if agent == "manager":
        policy = Policy(pair.manager, tiny.model.decoder)
        data, _ = manager_demonstrations(pair.manager, *shared)
    else:
        policy = Policy(pair.answerer, tiny.model.decoder)
        banks = ingest(add_everything, None, pair.tools, pair.encoder, tiny.conversations).banks
        data, _ = answer_demonstrations(pair.answerer, *shared, banks)
    optimizer = create_optimizer(1e-2, weight_decay=0.0)
    step = make_sft_step(policy, ImitationOptions(micro_batches=2), optimizer)
    return step, optimizer, (Frozen(None, None), pair.tools, data)


def _state(optimizer):
    return create_state(jax.tree.map(jnp.copy, _tiny().model.params), optimizer, 0)


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS)
def test_it_learns_its_demonstrations(agent):
    step, optimizer, arguments = _training(agent)
    data = arguments[-1]
    assert data.rows >= BATCH
    rows, valid = jnp.arange(BATCH), jnp.ones(BATCH, bool)
    state, nll = _state(optimizer), []
    for _ in range(STEPS):
        state, metrics, rollout = step(state, *arguments, rows, valid)
        nll.append(float(metrics["nll"].value()))
    assert nll[0] > 4 and nll[-1] < 0.25 * nll[0], nll
    assert int(state.step) == STEPS and step._cache_size() == 1
    np.testing.assert_array_equal(rollout.samples.tokens[:, 0], data.tokens[:BATCH])
    np.testing.assert_array_equal(rollout.samples.length[:, 0], data.length[:BATCH])
    assert np.all(np.asarray(rollout.rewards) == 1) and bool(rollout.samples.stopped.all())
    assert "reward" not in metrics


@pytest.mark.parametrize("agent", AGENTS)
def test_the_prompts_are_those_of_the_rows(agent):
    step, optimizer, (frozen, tools, data) = _training(agent)
    rows, valid = jnp.array([3, 0, 2, 1]), jnp.array([True, True, True, False])
    _, metrics, rollout = step(_state(optimizer), frozen, tools, data, rows, valid)
    batch, response = data.select(rows, valid)
    if agent == "answer":
        tokens, length = batch.query.tokens, batch.query.length
    else:
        tokens, length = batch.facts.tokens[:, 0], batch.facts.length[:, 0]
    for row in range(BATCH):
        prompt = _tiny().decode(rollout.prompt.tokens[row, : rollout.prompt.length[row]])
        assert _tiny().decode(tokens[row, : length[row]]) in prompt
        assert prompt.endswith("<|im_start|>assistant\n")
    shown = np.asarray(rollout.shown)
    assert (shown > 0).any() if agent == "manager" else (shown == 0).all()
    assert float(metrics["nll"].weight) == int(response.length[:3].sum())  # the last is padding


@pytest.mark.parametrize("agent", AGENTS)
def test_one_program_without_the_host(agent):
    step, optimizer, arguments = _training(agent)
    rows, valid = jnp.arange(BATCH), jnp.ones(BATCH, bool)
    compiled = step.lower(_state(optimizer), *arguments, rows, valid).compile().as_text()
    instructions = re.findall(r"^\s*(?:ROOT )?%?[\w.-]+ = .*", compiled, re.MULTILINE)
    assert len(instructions) > 1000
    bare = [re.sub(r", metadata=\{.*", "", line).split(" = ", 1)[1] for line in instructions]
    assert [line for line in bare if HOST.search(line)] == []


def test_best_of_n_is_the_same_rollout_with_another_update():
    grpo, optimizer = make_training("answer"), optax.sgd(1e-2)
    algorithm = ImitationOptions(group=2, imitated="best", min_reward=-1.0)
    step = compile_step(imitation_update, grpo.policy, algorithm, optimizer)
    params = make_tiny().model.params
    state = create_state(jax.tree.map(jnp.copy, params), optimizer, 0)
    rows, valid = jnp.array([0, 1], jnp.int32), jnp.ones(2, bool)
    state, metrics, rollout = step(state, *grpo.arguments, rows, valid)
    best = np.argmax(rollout.rewards, -1)
    lengths = np.asarray(rollout.samples.length)[np.arange(2), best]
    assert float(metrics["kept"].value()) == 1 / 2
    assert float(metrics["nll"].weight) == lengths.sum()
    # Kept are tokens that the sampler drew, so their likelihood is what it said.
    drawn = np.asarray(rollout.samples.logprobs)[np.arange(2), best].sum()
    np.testing.assert_allclose(metrics["nll"].sum, -drawn, rtol=1e-4)
    moved = jax.tree.map(lambda new, old: bool(jnp.any(new != old)), state.params, params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_a_step_of_grpo_learns_from_demonstrations_too():
    _, optimizer, (frozen, tools, shown) = _training("answer")
    tiny = _tiny()
    algorithm = GRPOOptions(group=2, kl_weight=0.0, demonstration_weight=1.0)
    policy = Policy(tiny.pair.answerer, tiny.model.decoder)
    step = compile_step(update, policy, algorithm, optimizer)
    data = WithDemonstrations(shown.data, shown)
    rows, valid = jnp.arange(BATCH), jnp.ones(BATCH, bool)
    state, nll = _state(optimizer), []
    for _ in range(20):
        state, metrics, _ = step(state, frozen, tools, data, rows, valid)
        nll.append(float(metrics["demonstration_nll"].value()))
    assert nll[0] > 4 and nll[-1] < 0.6 * nll[0], nll
    # What is drawn depends on the state's key and step alone.
    key = _state(optimizer).demonstration_key()
    for drawn in (data.draw(key, 3), jax.jit(lambda key: data.draw(key, 3))(key)):
        np.testing.assert_array_equal(drawn[1].tokens, data.draw(key, 3)[1].tokens)
    later = jax.random.key_data(state.demonstration_key())
    assert not jnp.array_equal(later, jax.random.key_data(key))


def _extractor():
    """Returns the extractor's policy and its demonstrations."""
    tiny = _tiny()
    given = with_options(
        tiny.options,
        algorithm="sft",
        agent="extractor",
        facts_response_length=64,
        turn_width=48,
        facts_prompt="compact_nano",
    )
    check_options(given)
    data = extractor_data(given, tiny.pair, tiny.models, tiny.conversations)
    return make_policy(given, tiny.pair, tiny.models, "extractor"), data


def test_the_fact_extractor_is_shown_what_is_noted_and_silence():
    tiny, (_, data) = _tiny(), _extractor()
    noted = {fact.sources[-1]: fact.text for c in tiny.conversations for fact in c.facts}
    assert len(noted) < data.rows < sum(len(c.turns) for c in tiny.conversations)
    written = zip(np.asarray(data.tokens), np.asarray(data.length), strict=True)
    texts = [tiny.decode(row[: length - 1]) for row, length in written]
    assert {f"- {text}" for text in noted.values()} | {"NONE"} == {*texts}


@pytest.mark.slow
def test_the_fact_extractor_learns_its_demonstrations():
    tiny, (policy, data) = _tiny(), _extractor()
    optimizer = create_optimizer(1e-2, weight_decay=0.0)
    step = make_sft_step(policy, ImitationOptions(), optimizer)
    given = (Frozen(None, None), tiny.pair.tools, data, jnp.arange(BATCH), jnp.ones(BATCH, bool))
    state, nll = _state(optimizer), []
    for _ in range(STEPS):
        state, metrics, rollout = step(state, *given)
        nll.append(float(metrics["nll"].value()))
    assert nll[0] > 4 and nll[-1] < 0.25 * nll[0], nll
    said = tiny.decode(data.data.turns.turn[0][0, : data.data.turns.turn[1][0]])
    assert said in tiny.decode(rollout.prompt.tokens[0, : rollout.prompt.length[0]])
