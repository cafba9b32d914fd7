"""Rollouts against a second reading of the same samples on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import make_training, stack, word_f1

from memr1_jax.agents.manager import apply_response, manager_prompt
from memr1_jax.agents.rollout import answer_rollout
from memr1_jax.data.batches import AnswerBatch
from memr1_jax.models.sampler import Sampling
from memr1_jax.text.answer_span import extract_answer
from memr1_jax.text.normalize import words_of_text
from memr1_jax.training.loop import metric_values

ROWS = [0, 1]


def _answers(tiny, samples):
    """The answers that a reader finds in samples `[..., R]`."""
    tokens, length = np.asarray(samples.tokens), np.asarray(samples.length)
    found = np.empty(length.shape, object)
    for place in np.ndindex(length.shape):
        row = tokens[place][: length[place]]
        text = tiny.model.tokenizer.decode(row, skip_special_tokens=True)
        found[place] = extract_answer(text)[0]
    return found


def _gold(tiny, texts):
    return stack([words_of_text(text, tiny.bench.encoder.sizes.gold_words) for text in texts])


def test_an_answer_that_is_the_gold_one_earns_1(tiny):
    training = make_training("answer")
    _, _, first = training.run(training.state(), ROWS)
    answers = _answers(tiny, first.samples)
    assert len(set(answers.ravel())) == answers.size  # temperature 1: the samples differ
    query = training.data.query
    gold = jax.tree.map(
        lambda x, new: x.at[jnp.array(ROWS)].set(new), query.gold, _gold(tiny, answers[:, 1])
    )
    data = training.data.replace(query=query.replace(gold=gold))
    _, metrics, second = training.step(
        training.state(),
        training.frozen,
        tiny.bench.tools,
        data,
        jnp.array(ROWS),
        jnp.ones(2, bool),
    )
    # What is sampled does not depend on the gold answer; the reward does.
    np.testing.assert_array_equal(first.samples.tokens, second.samples.tokens)
    assert (np.asarray(second.rewards[:, 1]) == 1).all()
    assert (np.asarray(second.rewards[:, 0]) < 1).all()
    assert metric_values(metrics)["reward"] == pytest.approx(float(second.rewards.mean()))


@pytest.mark.parametrize("agent", ["answer", "manager"])
def test_padding_rows_stay_silent_and_do_not_count(agent):
    training = make_training(agent)
    _, whole, rollout = training.run(training.state(), [0, 1])
    _, padded, partial = training.run(training.state(), [0, 1], [True, False])
    assert (np.asarray(partial.samples.length[1]) == 0).all()
    np.testing.assert_array_equal(partial.samples.tokens[0], rollout.samples.tokens[0])
    np.testing.assert_array_equal(partial.rewards[0], rollout.rewards[0])
    group = training.algorithm.group
    for name in ("truncated", "response_length"):
        assert float(padded[name].weight) == group and float(whole[name].weight) == 2 * group
    assert metric_values(padded)["reward"] == pytest.approx(float(partial.rewards[0].mean()))


def test_a_manager_earns_what_the_frozen_agent_answers_from_its_banks(tiny):
    training = make_training("manager")
    speaker = np.asarray(training.data.speaker)
    rows = [int(np.flatnonzero(speaker == which)[0]) for which in (0, 1)]
    batch = training.data.select(jnp.array(rows), jnp.ones(2, bool))
    agent, tools, params = tiny.bench.answerer, tiny.bench.tools, training.frozen.answerer
    manager, group = tiny.bench.manager, training.algorithm.group
    _, _, first = training.run(training.state(), rows)

    @jax.jit
    def answers_of(params, tools, batch, samples):
        """The answers `[B, G, n]` of the other agent's own rollout, one bank pair a question."""

        def edit(bank, facts, tokens, length):
            prompt = manager_prompt(manager, tools, bank, facts)
            one = lambda t, n: apply_response(manager, tools, bank, prompt, facts, t, n)[0]  # noqa: E731
            return jax.vmap(one)(tokens, length)

        edited = jax.vmap(edit)(batch.own, batch.facts, samples.tokens, samples.length)
        shape = (*samples.length.shape, batch.asked.shape[1])

        def spread(x, axes):
            """To one row for every question of every sample; `axes` of [B, G, n] that x has."""
            index = tuple(slice(None) if a in axes else None for a in range(3))
            rest = x.shape[len(axes) :]
            return jnp.broadcast_to(x[index], (*shape, *rest)).reshape(-1, *rest)

        own = jax.tree.map(lambda x: spread(x, (0, 1)), edited)
        other = jax.tree.map(lambda x: spread(x, (0,)), batch.other)
        scene = jax.tree.map(lambda x: spread(x, (0,)), batch.scene)
        query = jax.tree.map(lambda x: spread(x, (0, 2)), batch.queries)
        second = spread(batch.speaker, (0,)) == 1

        def choose(a, b):
            return jnp.where(second.reshape(-1, *[1] * (a.ndim - 1)), b, a)

        banks = jax.tree.map(choose, own, other), jax.tree.map(choose, other, own)
        rollout = answer_rollout(
            agent,
            tiny.model.decoder,
            params,
            tools,
            AnswerBatch(banks, scene, query, jnp.ones(len(second), bool)),
            jax.random.key(0),
            Sampling.create(temperature=0.0),
            group=1,
            reward="token_f1",
        )
        return jax.tree.map(lambda x: x[:, 0].reshape(*shape, *x.shape[2:]), rollout.samples)

    samples = answers_of(params, tools, batch, first.samples)
    answers = _answers(tiny, samples)
    # The first sample's answers become the gold ones, so that there is something to earn.
    queries = training.data.queries
    new = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), _gold(tiny, answers[:, 0].ravel()))
    gold = jax.tree.map(lambda x, y: x.at[jnp.array(rows)].set(y), queries.gold, new)
    asked = training.data.asked.at[jnp.array(rows)].set(jnp.array([[True, True], [True, False]]))
    data = training.data.replace(queries=queries.replace(gold=gold), asked=asked)
    _, metrics, second = training.step(
        training.state(), training.frozen, tools, data, jnp.array(rows), jnp.ones(2, bool)
    )
    np.testing.assert_array_equal(first.samples.tokens, second.samples.tokens)
    assert (np.asarray(second.rewards[:, 0]) == 1).all(), answers
    expected = np.array(
        [
            [
                float(np.mean([word_f1(answers[b, g, q], answers[b, 0, q]) for q in range(2 - b)]))
                for g in range(group)
            ]
            for b in range(2)
        ]
    )
    np.testing.assert_allclose(second.rewards, expected, atol=1e-6)
    assert float(metrics["token_f1"].weight) == 3 * group


def test_a_constrained_manager_is_always_readable_in_training():
    training = make_training("manager")
    state = training.state()
    for step in range(5):
        state, metrics, rollout = training.run(state, [step, step + 1])
        values = metric_values(metrics)
        assert (values["invalid"], values["skipped"], values["unknown"]) == (0, 0, 0)
        assert values["truncated"] == 0 and bool(rollout.samples.stopped.all())
