"""The extractor's rollout against the manager's on the same facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import row_of

import memr1_jax.agents.extractor_rollout as rollout_module
from memr1_jax.agents.consult import FrozenAnswerer, Marking
from memr1_jax.agents.extractor import create_extractor
from memr1_jax.agents.extractor_rollout import (
    FrozenManager,
    encode_rewarded_turns,
    extractor_rollout,
)
from memr1_jax.agents.reward import RewardOptions
from memr1_jax.agents.rollout import manager_rollout
from memr1_jax.data.encode import encode_manager_data
from memr1_jax.data.tuples import linked_questions, manager_tuples
from memr1_jax.models.sampler import Samples, greedy_sampling

REWARD = RewardOptions("token_f1", format_weight=0.5, size_weight=0.25)
LENGTH = 64


@pytest.fixture(scope="module")
def data(tiny):
    found = encode_rewarded_turns(tiny.pair.encoder, tiny.conversations, 50, "last", 48)
    return jax.device_put(found)


def test_every_linked_turn_is_there(tiny, data):
    (dialogue,) = tiny.conversations
    linked = linked_questions(dialogue)
    assert data.rows == len(linked)
    assert np.asarray(data.managed.facts.source).tolist() == list(linked)
    assert not np.asarray(data.managed.facts.length).any()
    told = [
        tiny.decode(row[:n]).strip()
        for row, n in zip(*map(np.asarray, data.turns.turn), strict=True)
    ]
    assert all(dialogue.turns[p].text.startswith(t) for p, t in zip(linked, told, strict=True))


@pytest.mark.slow
def test_right_facts_earn_what_the_manager_earns_with_them(tiny, data, monkeypatch):
    """Checks one group: the noted fact, and nothing, which leaves the bank as it was."""
    dialogue, pair = tiny.conversations[0], tiny.pair
    tuples = manager_tuples(dialogue)[:2]
    whole = encode_manager_data(pair.encoder, tiny.conversations, tuples)
    noted = jax.device_put(whole).select(jnp.arange(2), jnp.ones(2, bool))
    places = [list(linked_questions(dialogue)).index(item.turn) for item in tuples]
    written = [
        [row_of(tiny, f"- {item.facts[0].text}", LENGTH), row_of(tiny, "NONE", LENGTH)]
        for item in tuples
    ]
    tokens, length = (
        jnp.array([[np.asarray(sample[k]) for sample in row] for row in written], jnp.int32)
        for k in range(2)
    )

    def given(*arguments, **options):
        return Samples(tokens, length, jnp.zeros(tokens.shape), jnp.ones(length.shape, bool))

    monkeypatch.setattr(rollout_module, "generate", given)
    extractor = create_extractor(tiny.model, "compact_nano", 640, LENGTH, turn_width=48)
    answerer = FrozenAnswerer(pair.answerer, tiny.model.decoder)
    manager = FrozenManager(pair.manager, tiny.model.decoder)

    def both(params, tools):
        agents = (extractor, tiny.model.decoder, params, manager, params, answerer, params, tools)
        marking = {"marking": Marking(REWARD)}
        rows = data.select(jnp.array(places), jnp.ones(2, bool))
        found = extractor_rollout(*agents, rows, *greedy_sampling(), group=2, **marking)
        managed = (pair.manager, tiny.model.decoder, params, answerer, params, tools)
        wanted = manager_rollout(*managed, noted, *greedy_sampling(), group=1, **marking)
        return found, wanted

    found, wanted = jax.device_get(jax.jit(both)(tiny.model.params, pair.tools))
    assert all(len(item.facts) == 1 for item in tuples)
    np.testing.assert_allclose(found.rewards[:, 0], wanted.rewards[:, 0], rtol=1e-5, atol=1e-6)
    assert found.rewards.shape == (2, 2) and found.valid.all()
    np.testing.assert_allclose(float(found.metrics["silent"].value()), 0.5)
    np.testing.assert_allclose(float(found.metrics["facts"].value()), 0.5)
