"""Groups with every operation in them: what is sampled, and that they count as the policy's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import make_tiny

from memr1_jax.agents.rollout import manager_prompts, sample_edits
from memr1_jax.agents.stratified import floored, policy_shares
from memr1_jax.data.encode import encode_manager_data
from memr1_jax.data.tuples import manager_tuples
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.sampler import Sampling
from memr1_jax.rl.advantages import group_advantages, informative_groups
from memr1_jax.text.events import Event
from memr1_jax.text.grammar import allowed
from memr1_jax.text.json_reference import scan_operations_reference
from memr1_jax.text.strata import advance_within, allowed_within, create_state

GROUP, TEMPERATURE = 8, 0.8


@pytest.fixture(scope="module")
def drawn():
    """Returns the tiny pair, a batch of turns, and stratified edits of it."""
    tiny = make_tiny(stratified=True, group=GROUP)
    tuples = [item for c in tiny.conversations for item in manager_tuples(c, None)]
    data = encode_manager_data(tiny.pair.encoder, tiny.conversations, tuples)
    data = jax.device_put(data)
    empty = next(i for i, item in enumerate(tuples) if not item.banks[item.speaker])
    full = next(i for i, item in enumerate(tuples) if item.banks[item.speaker])
    rows = jnp.array([full, empty, full])
    batch = data.select(rows, jnp.array([True, True, False]))
    edit = functools.partial(sample_edits, tiny.pair.manager, tiny.model.decoder)
    edit = jax.jit(functools.partial(edit, group=GROUP, stratified=True))
    sampling = Sampling.create(TEMPERATURE)
    edits = edit(tiny.model.params, tiny.pair.tools, batch, jax.random.key(1), sampling)
    return tiny, batch, edits


def test_each_sample_begins_with_its_operation(drawn):
    tiny, _, edits = drawn
    tokens, length = np.asarray(edits.samples.tokens), np.asarray(edits.samples.length)
    for row, shown in ((0, True), (1, False)):
        for place in range(GROUP):
            event = Event(place % len(Event))
            text = tiny.decode(tokens[row, place, : length[row, place]]).removesuffix("<|im_end|>")
            if event.names_memory and not shown:
                assert not length[row, place] and edits.weights[row, place] == 0
                continue
            first = scan_operations_reference(text.split("\n")[0].encode(), 2, False)
            assert first.valid, text
            names = [operation[0] for operation in first.operations]
            assert names == ([] if event == Event.NONE else [event]), text
            assert edits.weights[row, place] > 0
    assert not length[2].any()


def test_a_weight_is_the_probability_of_what_was_not_masked(drawn):
    """Computes the same in a plain pass over each text, one step of the grammar after another."""
    tiny, batch, edits = drawn
    tools, decoder, params = tiny.pair.tools, tiny.model.decoder, {"params": tiny.model.params}
    prompts = manager_prompts(tiny.pair.manager, tools, batch)
    room = edits.samples.tokens.shape[-1]

    @jax.jit
    def logits_of(tokens, length):
        (hidden,) = decoder.apply(params, (Block(tokens[None], length[None]),))
        return decoder.apply(params, hidden[0], method=Decoder.logits)

    @jax.jit
    def masks(state, remaining, event):
        free = allowed(tools.grammar, state[0], remaining, shown)
        return free, allowed_within(tools.grammar, tools.strata, state, remaining, shown, event)

    @jax.jit
    def advance(state, token):
        return advance_within(tools.grammar, tools.strata, state, token, shown)

    shown = prompts.shown[0]
    for place in range(GROUP):
        event = jnp.int32(place % len(Event))
        length = int(edits.samples.length[0, place])
        head = (tiny.pair.manager.template.instruction, prompts.tokens[0, : prompts.length[0]])
        head = np.concatenate([np.asarray(part, np.int32) for part in head])
        answer = np.asarray(edits.samples.tokens[0, place, :length])
        text = np.concatenate([head, answer])
        logits = logits_of(jnp.asarray(np.pad(text, (0, 800 - len(text)))), jnp.int32(len(text)))
        state, share = create_state(tools.grammar, ()), 1.0
        for step, token in enumerate(answer):
            free, kept = map(np.asarray, masks(state, jnp.int32(room - step), event))
            weight = np.exp(np.asarray(logits[len(head) + step - 1], np.float64) / TEMPERATURE)
            share *= weight[kept].sum() / weight[free].sum()
            if step < 3:
                logprob = np.log(weight[token] / weight[free].sum())
                assert float(edits.samples.logprobs[0, place, step]) == pytest.approx(
                    logprob, abs=2e-3
                )
            state = advance(state, jnp.int32(token))
        assert float(edits.weights[0, place]) == pytest.approx(len(Event) * share, rel=1e-2)


def test_shares_of_operations_are_means_of_the_weights(drawn):
    _, batch, edits = drawn
    shares = policy_shares(edits.weights, batch.valid)
    weights = np.asarray(edits.weights[:2]).reshape(2, -1, len(Event))
    for event in Event:
        expected = weights[..., event].mean() / len(Event)
        assert float(shares[f"policy_{event.key}"].value()) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_a_group_is_the_policys_own():
    """Takes each of four actions once, weighted by its probability: the gradient is exact."""
    logits, rewards = jnp.array([0.3, -1.2, 0.1, -3.0]), jnp.array([1.0, 0.0, 0.25, 2.0])
    exact = jax.grad(lambda logits: jax.nn.softmax(logits) @ rewards)(logits)
    weights = 4 * jax.nn.softmax(logits)
    advantages = group_advantages(rewards[None], "dr_grpo", None, weights[None])[0]
    surrogate = jax.grad(lambda x: jnp.mean(weights * advantages * jax.nn.log_softmax(x)))(logits)
    np.testing.assert_allclose(surrogate, exact, atol=1e-6)


def test_a_floor_moves_what_the_policy_hardly_ever_chooses():
    logits, rewards = jnp.array([9.0, 0.0, 0.0, -20.0]), jnp.array([0.5, 0.5, 0.5, 1.0])
    weights = jnp.where(jnp.arange(4) == 2, 0.0, 4 * jax.nn.softmax(logits))[None]
    kept = floored(weights, jnp.array([[5, 5, 0, 5]]), 0.1)
    np.testing.assert_allclose(kept, [[weights[0, 0], 0.4, 0.0, 0.4]])  # none where none was drawn
    assert floored(weights, jnp.array([[5, 5, 0, 5]]), 0.0).tolist() == weights.tolist()

    def gradient(weights):
        advantages = group_advantages(rewards[None], "dr_grpo", None, weights)[0]
        return jax.grad(lambda x: jnp.mean(weights * advantages * jax.nn.log_softmax(x)))(logits)

    assert abs(gradient(weights)[3]) < 1e-6 and gradient(kept)[3] > 0.02


def test_weighted_advantages_by_hand():
    scores, weights = jnp.array([[1.0, 0.0, 0.0, 5.0]]), jnp.array([[1.0, 3.0, 0.0, 0.0]])
    mean, deviation = 0.25, np.sqrt((0.75**2 + 3 * 0.25**2) / 4)
    found = group_advantages(scores, "grpo", jnp.array([[0.4, 0, 0, 9.0]]), weights)[0]
    expected = (np.array([1.0, 0.0]) - mean) / deviation - (np.array([0.4, 0.0]) - 0.1)
    np.testing.assert_allclose(found[:2], expected, rtol=1e-5)
    # A group is flat where all that counts is equal, whatever was not drawn.
    assert not informative_groups(jnp.array([[1.0, 1.0, 0.0, 0.0]]), weights)[0]
    flat = group_advantages(jnp.array([[1.0, 1.0, 0.0, 0.0]]), "grpo", None, weights)
    np.testing.assert_array_equal(flat[0, :2], [0.0, 0.0])
