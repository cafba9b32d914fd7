"""Rollouts against a second reading of the same samples on the host."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import compile_training, first_step, make_tiny, make_training, stack, word_f1

from memr1_jax.agents.consult import Marking
from memr1_jax.agents.judge import Judge, answer_block, judge_log_odds
from memr1_jax.agents.manager import apply_response, manager_prompt
from memr1_jax.agents.reward import RewardOptions
from memr1_jax.agents.rollout import answer_rollout, manager_rollout
from memr1_jax.agents.templates import load_template
from memr1_jax.data.batches import AnswerBatch
from memr1_jax.data.tuples import manager_tuples
from memr1_jax.evals.metrics import exact_match
from memr1_jax.memory.bank import bank_size
from memr1_jax.models.decoder import Block
from memr1_jax.models.sampler import Sampling
from memr1_jax.text.answer_span import extract_answer
from memr1_jax.text.normalize import words_of_text
from memr1_jax.training.loop import metric_values

ROWS = [0, 1]


def _answers(tiny, samples):
    """Returns the answers that a reader finds in samples `[..., R]`."""
    tokens, length = np.asarray(samples.tokens), np.asarray(samples.length)
    found = np.empty(length.shape, object)
    for place in np.ndindex(length.shape):
        row = tokens[place][: length[place]]
        text = tiny.model.tokenizer.decode(row, skip_special_tokens=True)
        found[place] = extract_answer(text)[0]
    return found


def _gold(tiny, texts):
    return stack([words_of_text(text, tiny.pair.encoder.sizes.gold_words) for text in texts])


def test_an_answer_that_is_the_gold_one_earns_1(tiny):
    training = compile_training("answer")
    first = first_step("answer").rollout
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
        tiny.pair.tools,
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
    training = compile_training(agent)
    whole, rollout = first_step(agent).metrics, first_step(agent).rollout
    _, padded, partial = training.run(training.state(), [0, 1], [True, False])
    assert (np.asarray(partial.samples.length[1]) == 0).all()
    np.testing.assert_array_equal(partial.samples.tokens[0], rollout.samples.tokens[0])
    np.testing.assert_array_equal(partial.rewards[0], rollout.rewards[0])
    group = training.algorithm.group
    for name in ("truncated", "response_length"):
        assert float(padded[name].weight) == group and float(whole[name].weight) == 2 * group
    assert metric_values(padded)["reward"] == pytest.approx(float(partial.rewards[0].mean()))
    if agent == "manager":
        # One prompt at least, and no more than one for each sample and question.
        asked = float(padded["distinct_prompts"].weight)
        assert asked == int(training.data.asked[0].sum()) * group
        assert 1 <= float(padded["distinct_prompts"].sum) <= asked


@functools.cache
def _make_consult():
    """Compiles `_consult` of the tiny model once."""
    tiny = make_tiny()
    return jax.jit(functools.partial(_consult, tiny.pair, tiny.model.decoder))


def _consult(pair, decoder, params, tools, batch, samples):
    """Returns the answers `[B, G, n]` of the other agent's own rollout, one bank pair a question.

    And the banks `[B, G, M, ...]` after the edits in `samples`, from which it answers.
    """

    def edit(bank, facts, tokens, length):
        prompt = manager_prompt(pair.manager, tools, bank, facts)
        one = lambda t, n: apply_response(pair.manager, tools, bank, prompt, facts, t, n)[0]  # noqa: E731
        return jax.vmap(one)(tokens, length)

    edited = jax.vmap(edit)(batch.own, batch.facts, samples.tokens, samples.length)
    shape = (*samples.length.shape, batch.asked.shape[1])

    def spread(x, axes):
        """Repeats x for every question of every sample; `axes` of [B, G, n] that x has."""
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
        pair.answerer,
        decoder,
        params,
        tools,
        AnswerBatch(banks, scene, query, jnp.ones(len(second), bool)),
        jax.random.key(0),
        Sampling.create(temperature=0.0),
        group=1,
    )
    answers = jax.tree.map(lambda x: x[:, 0].reshape(*shape, *x.shape[2:]), rollout.samples)
    return answers, edited


def test_a_manager_earns_what_the_frozen_agent_answers_from_its_banks(tiny):
    training = compile_training("manager")
    speaker = np.asarray(training.data.speaker)
    rows = [int(np.flatnonzero(speaker == which)[0]) for which in (0, 1)]
    batch = training.data.select(jnp.array(rows), jnp.ones(2, bool))
    tools, params, group = tiny.pair.tools, training.frozen.answerer, training.algorithm.group
    _, _, first = training.run(training.state(), rows)

    samples, _ = _make_consult()(params, tools, batch, first.samples)
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
    training = compile_training("manager")
    first = first_step("manager")
    second = training.run(first.copy(), [1, 2])
    third = training.run(second[0], [2, 3])
    for metrics, rollout in ((first.metrics, first.rollout), second[1:], third[1:]):
        values = metric_values(metrics)
        assert (values["invalid"], values["skipped"], values["unknown"]) == (0, 0, 0)
        assert values["truncated"] == 0 and bool(rollout.samples.stopped.all())


def _batch(training, rows, valid=None):
    return training.data.select(jnp.array(rows), jnp.array(valid or [True] * len(rows)))


def test_the_default_reward_is_exact_match(tiny):
    policy, batch = make_training("answer").policy, _batch(make_training("answer"), ROWS)

    @jax.jit
    def rollout(params, tools, batch):
        network = policy.agent, policy.decoder, params
        return answer_rollout(
            *network, tools, batch, jax.random.key(3), Sampling.create(1.0), group=2
        )

    arguments = tiny.model.params, tiny.pair.tools
    answers = _answers(tiny, rollout(*arguments, batch).samples)
    gold = _gold(tiny, answers[:, 1])
    found = rollout(*arguments, batch.replace(query=batch.query.replace(gold=gold)))
    expected = [[exact_match(text, row[1]) for text in row] for row in answers]
    np.testing.assert_array_equal(found.rewards, expected)
    assert {0, 1} == {int(x) for x in found.rewards.ravel()}
    values = metric_values(found.metrics)
    assert values["reward_outcome"] == pytest.approx(np.mean(expected))
    assert values["reward_format"] == 0 and "judge" not in values


@pytest.fixture(scope="module")
def judge(tiny):
    """Returns a judge on the tiny model; other words stand in for yes, which is no token."""
    template = load_template("judge_compact", tiny.model.tokenizer)
    return Judge(template, tiny.model.decoder, yes=(79, 379), no=(80, 300, 649), answer_width=8)


@pytest.fixture(scope="module")
def judge_params(tiny):
    return jax.tree.map(lambda x: x * 1.05, tiny.model.params)


@pytest.fixture(scope="module")
def odds_of(tiny, judge, judge_params):
    """Judges one question, gold answer (texts) and response (tokens)."""
    tools, encoder = tiny.pair.tools, tiny.pair.encoder

    @jax.jit
    def compiled(params, tools, question, gold, tokens, length):
        answer = jax.tree.map(lambda x: x[None], answer_block(tools, tokens, length))
        return judge_log_odds(judge, params, tools, question, gold, answer)[0], answer.length[0]

    def odds(question, response):
        texts = [question.question, question.answer]
        asked, gold = (Block(*map(jnp.asarray, encoder.rows([text], 48))) for text in texts)
        return [float(x) for x in compiled(judge_params, tools, asked, gold, *response)]

    return odds


def test_a_judge_rewards_answers(tiny, judge, judge_params, odds_of):
    training = make_training("answer")
    policy = training.policy

    @jax.jit
    def rollout(params, judge_params, tools, batch):
        return answer_rollout(
            *(policy.agent, policy.decoder, params, tools, batch),
            *(jax.random.key(3), Sampling.create(1.0)),
            group=2,
            marking=Marking(RewardOptions("judge", outcome_weight=0.5), judge, judge_params),
        )

    batch = _batch(training, [0, 3, 1], [True, True, False])
    lowered = rollout.lower(tiny.model.params, judge_params, tiny.pair.tools, batch)
    assert "callback" not in lowered.as_text()
    found = lowered.compile()(tiny.model.params, judge_params, tiny.pair.tools, batch)
    questions = [question for c in tiny.conversations for question in c.questions]
    samples = found.samples
    expected = np.array(
        [
            [odds_of(questions[row], (samples.tokens[b, g], samples.length[b, g])) for g in (0, 1)]
            for b, row in enumerate([0, 3])
        ]
    )
    odds, answer_tokens = expected[..., 0], expected[..., 1]
    assert np.ptp(odds) > 1e-2
    np.testing.assert_allclose(found.rewards[:2], 0.5 * odds, atol=1e-4)
    np.testing.assert_array_equal(found.rewards[2], 0)
    values = metric_values(found.metrics)
    assert values["judge"] == pytest.approx(odds.mean(), abs=1e-4)
    assert values["judge_yes"] == pytest.approx((odds > 0).mean())
    assert values["reward_outcome"] == pytest.approx(float(found.rewards[:2].mean()), abs=1e-6)
    assert values["answer_tokens"] == pytest.approx(answer_tokens.mean()) and answer_tokens.all()


@pytest.mark.slow
def test_a_judge_rewards_edits_beside_form_and_size(tiny, judge, judge_params, odds_of):
    training = make_training("manager")
    policy, tools, params = training.policy, tiny.pair.tools, tiny.model.params
    reward = RewardOptions("judge", format_weight=0.5, size_weight=2.0, size_free=1)

    @jax.jit
    def rollout(params, judge_params, tools, batch):
        return manager_rollout(
            *(policy.agent, policy.decoder, params, policy.answerer, params, tools, batch),
            *(jax.random.key(3), Sampling.create(1.0)),
            group=2,
            marking=Marking(reward, judge, judge_params),
        )

    tuples = [item for c in tiny.conversations for item in manager_tuples(c)]
    sizes = np.asarray(training.data.own.alive.sum(-1))
    rows = [int(sizes.argmin()), int(sizes.argmax()), 0]
    batch = _batch(training, rows, [True, True, False])
    found = rollout(params, judge_params, tools, batch)
    answers, edited = _make_consult()(params, tools, batch, found.samples)
    odds = [
        [
            np.mean(
                [
                    odds_of(question, (answers.tokens[b, g, q], answers.length[b, g, q]))[0]
                    for q, question in enumerate(tuples[row].questions[:2])
                ]
            )
            for g in (0, 1)
        ]
        for b, row in enumerate(rows[:2])
    ]
    excess = np.maximum(np.asarray(bank_size(edited))[:2] - 1, 0) / 16
    assert excess.any() and not excess.all()
    # Decoding is constrained: every response is readable.
    np.testing.assert_allclose(found.rewards[:2], np.array(odds) + 0.5 - 2.0 * excess, atol=1e-4)
    np.testing.assert_array_equal(found.rewards[2], 0)
    values = metric_values(found.metrics)
    assert values["reward_outcome"] == pytest.approx(np.mean(odds), abs=1e-4)
    assert values["reward_format"] == pytest.approx(0.5)
    assert values["reward_size"] == pytest.approx(-2.0 * excess.mean(), abs=1e-6)
    asked = np.asarray(batch.asked)[:2].sum() * 2
    assert float(found.metrics["judge"].weight) == asked == found.metrics["answer_tokens"].weight


def test_a_judged_reward_needs_a_judge(tiny):
    policy, batch = make_training("answer").policy, _batch(make_training("answer"), ROWS)
    with pytest.raises(ValueError, match="there is no judge"):
        jax.eval_shape(
            lambda: answer_rollout(
                *(policy.agent, policy.decoder, tiny.model.params, tiny.pair.tools, batch),
                *(jax.random.key(3), Sampling.create(1.0)),
                group=2,
                marking=Marking(RewardOptions("judge")),
            )
        )


@pytest.mark.slow
@pytest.mark.parametrize("horizon", ["one_step", "terminal", "branches"])
def test_growth_is_priced_at_every_horizon(horizon):
    """Checks that a manager pays for its edits times the outcome, whatever the reward."""
    training = make_training("manager", horizon)
    reward = RewardOptions("contains", growth_weight=0.5)
    policy = dataclasses.replace(training.policy, reward=reward)

    @jax.jit
    def roll(params, frozen, tools, data):
        batch = data.select(jnp.array(ROWS), jnp.ones(2, bool))
        options = jax.random.key(0), Sampling.create(1.0)
        return policy.rollout(params, frozen, tools, batch, *options, group=2)

    rollout = roll(make_tiny().model.params, *training.arguments)
    assert rollout.costs.shape == rollout.rewards.shape
    assert (np.asarray(rollout.costs) >= 0).all()
    # Whoever answers nothing pays nothing.
    assert (np.asarray(rollout.costs)[np.asarray(rollout.rewards) == 0] == 0).all()
    found = metric_values(rollout.metrics)
    assert {"added", "repeated", "growth_price"} <= found.keys() and found["added"] > 0
