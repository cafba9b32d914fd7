"""Outcomes of banks and the price of their growth, against a second reading on the host."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import bank_of, make_tiny, stack

from memr1_jax.agents.consult import FrozenAnswerer, Marking, answerer_prompts
from memr1_jax.agents.marking import mark_edits
from memr1_jax.agents.reward import RewardOptions, growth_price, no_report, repeats
from memr1_jax.data.encode import encode_manager_data
from memr1_jax.data.pressure import PressureOptions, with_pressure
from memr1_jax.data.tuples import evidence_places, manager_tuples, outdated_places
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import bank_size
from memr1_jax.models.decoder import Block, Decoder

RECALLED = {"reward": "recall", "memories": 2, "bank_capacity": 12, "retention_questions": 2}
RECALLED |= {"synthetic_changes": 0.5, "synthetic_facts": 4}


@pytest.fixture(scope="module")
def told():
    """Returns the tiny pair, its turns under pressure, and a batch of them."""
    tiny = make_tiny(**RECALLED)
    tuples = [item for c in tiny.conversations for item in manager_tuples(c, None)]
    pressure = PressureOptions(retention_questions=2, silent_turns=1.0, bank_depth=4)
    tuples = with_pressure(pressure, tiny.pair.encoder, tiny.conversations, tuples)
    data = encode_manager_data(tiny.pair.encoder, tiny.conversations, tuples)
    data = jax.device_put(data)
    rows = jnp.arange(data.rows)
    return tiny, tuples, data.select(rows, jnp.ones(data.rows, bool))


@functools.cache
def _mark(outcome):
    """Compiles the marks of an outcome once."""
    tiny = make_tiny(**RECALLED)
    answerer = FrozenAnswerer(tiny.pair.answerer, tiny.model.decoder, 7)
    marking = Marking(RewardOptions(outcome))
    return jax.jit(functools.partial(mark_edits, answerer, tiny.model.params, marking))


def _two_banks(batch):
    """Returns the bank before each turn, and one that has lost its first memory."""
    lost = batch.own.replace(alive=batch.own.alive.at[:, 0].set(False))
    return jax.tree.map(lambda *x: jnp.stack(x, axis=1), batch.own, lost)


def _reports(banks):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, banks.alive.shape[:2]), no_report())


def test_recall_and_freshness_are_shares_of_what_retrieval_returns(told):
    tiny, tuples, batch = told
    banks = _two_banks(batch)
    marks = _mark("recall:1,fresh:2")(tiny.pair.tools, batch, banks, _reports(banks))
    conversation = tiny.conversations[0]
    sizes, encoder = tiny.pair.encoder.sizes, tiny.pair.encoder
    seen: dict[str, set] = {"recall": set(), "fresh": set()}
    for row, item in enumerate(tuples):
        asked = (*item.questions[: sizes.questions], *item.retained)
        for place, question in enumerate(asked):
            query = encoder.keys([question.question])[0]
            evidence = set(evidence_places(conversation, question))
            outdated = set(outdated_places(conversation, question))
            for sample in range(2):
                found = set()
                own = jax.tree.map(lambda x: x[row, sample], banks)  # noqa: B023
                for bank in (own, jax.tree.map(lambda x: x[row], batch.other)):  # noqa: B023
                    score = np.where(bank.alive, np.asarray(bank.key) @ query, -np.inf)
                    best = np.argsort(-score, kind="stable")[: tiny.options.memories]
                    found |= {int(bank.source[slot]) for slot in best if bank.alive[slot]}
                expected = {
                    "recall": len(evidence & found) / len(evidence),
                    "fresh": 1 - len(outdated & found) / max(1, len(outdated)),
                }
                for name, value in expected.items():
                    assert float(marks.values[name][row, sample, place]) == pytest.approx(value)
                    seen[name].add(value)
    assert {0.0, 1.0} <= seen["recall"] and {0.0, 1.0} <= seen["fresh"], seen
    total = marks.values["recall"] + 2 * marks.values["fresh"]
    np.testing.assert_allclose(marks.outcome, total, rtol=1e-6)
    np.testing.assert_allclose(marks.worth, total / 3, rtol=1e-6)


def test_likelihood_is_that_of_the_gold_tokens_one_by_one(told):
    tiny, _, batch = told
    banks, agent = _two_banks(batch), tiny.pair.answerer
    marks = _mark("likelihood:2,recall:0.5")(tiny.pair.tools, batch, banks, _reports(banks))
    packed = answerer_prompts(agent, tiny.pair.tools, batch, banks)
    forward = jax.jit(lambda tokens, length: _logits(tiny, tokens, length))
    for row, sample, place in ((0, 0, 0), (0, 1, 0), (3, 1, 1)):
        prompt = packed.tokens[row, sample, place, : packed.length[row, sample, place]]
        queries = jax.tree.map(lambda x: x[row, place], batch.queries)  # noqa: B023
        gold = queries.gold_tokens[: queries.gold_length]
        parts = (agent.template.instruction, prompt, agent.label, gold)
        tokens = np.concatenate([np.asarray(part, np.int32) for part in parts])
        padded = np.pad(tokens, (0, 800 - len(tokens)))
        logprobs = jax.nn.log_softmax(forward(padded, len(tokens)))
        places = np.arange(len(tokens) - len(gold), len(tokens))
        expected = np.mean([logprobs[at - 1, tokens[at]] for at in places])
        assert float(marks.values["likelihood"][row, sample, place]) == pytest.approx(
            float(expected), rel=1e-4
        )
    likelihood, recall = marks.values["likelihood"], marks.values["recall"]
    np.testing.assert_allclose(marks.outcome, 2 * likelihood + 0.5 * recall, rtol=1e-5)
    worth = (2 * np.exp(likelihood) + 0.5 * recall) / 2.5
    np.testing.assert_allclose(marks.worth, worth, rtol=1e-5)


def test_the_likelihood_of_what_is_not_asked_is_0(told):
    tiny, _, batch = told
    banks = _two_banks(batch)
    mark = _mark("likelihood:2,recall:0.5")
    every = mark(tiny.pair.tools, batch, banks, _reports(banks)).values["likelihood"]
    few = batch.replace(asked=batch.asked.at[0].set(False))
    found = mark(tiny.pair.tools, few, banks, _reports(banks)).values["likelihood"]
    expected = jnp.where(few.asked[:, None], every, 0.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert float(jnp.abs(expected).max()) > 1.0


def _logits(tiny, tokens, length):
    decoder, params = tiny.model.decoder, {"params": tiny.model.params}
    (hidden,) = decoder.apply(params, (Block(tokens[None], jnp.int32(length)[None]),))
    return decoder.apply(params, hidden[0], method=Decoder.logits)


def test_a_gain_is_compared_with_the_bank_before(told):
    tiny, _, batch = told
    banks = batch.when_asked(_two_banks(batch))
    marks = _mark("likelihood_gain")(tiny.pair.tools, batch, banks, _reports(banks))
    np.testing.assert_allclose(marks.outcome[:, 0], 0.0, atol=1e-5)
    assert float(jnp.abs(marks.outcome[:, 1]).max()) > 1e-3
    after = marks.values["likelihood"]
    np.testing.assert_allclose(marks.outcome[:, 1], after[:, 1] - after[:, 0], atol=1e-5)


def test_later_facts_join_the_bank_before_it_is_asked(told):
    _, tuples, batch = told
    asked = batch.when_asked(jax.tree.map(lambda x: x[:, None], batch.own))
    before = np.asarray(bank_size(batch.own))
    np.testing.assert_array_equal(before, [len(item.banks[item.speaker]) for item in tuples])
    later = np.array([len(item.later[item.speaker]) for item in tuples])
    np.testing.assert_array_equal(np.asarray(bank_size(asked))[:, 0], before + later)
    assert later.max() > 0


def test_growth_is_priced_by_what_the_outcome_is_worth():
    tiny = make_tiny()
    texts = ["Anna has a red dog.", "Ben likes tea."]
    before = bank_of(tiny, texts)
    edits = {
        "nothing": texts,
        "one": [*texts, "Anna moved to Rome."],
        "a repeat": [*texts, "a red dog Anna has."],
        "two alike": [*texts, "Anna moved to Rome.", "Anna moved to Rome."],
        "fewer": texts[:1],
        "a rewritten repeat": [texts[0], texts[0]],
    }
    after = stack([bank_of(tiny, held) for held in edits.values()])
    both = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(edits), *x.shape)), before)
    np.testing.assert_array_equal(repeats(both, after), [0, 0, 1, 1, 0, 1])
    reward = RewardOptions(growth_weight=0.5, growth_free=0.5)
    worth = jnp.array([1.0, 1.0, 1.0, 0.5, 1.0, 0.0])
    price, values = growth_price(reward, both, after, jnp.full(len(edits), 2), worth)
    np.testing.assert_array_equal(values["added"], [0, 1, 1, 2, 0, 0])
    np.testing.assert_allclose(price, [0, 0, 0.25, 0.25, 0, 0])


def test_outcomes_are_read_with_their_weights():
    reward = RewardOptions("recall:1, exact_match:0.5,token_f1")
    found = [(part.name, part.weight) for part in reward.parts]
    assert found == [("recall", 1.0), ("exact_match", 0.5), ("token_f1", 1.0)]
    assert reward.answer_weight == 1.5 and not reward.judged and not reward.own
    assert RewardOptions("judge:2").judged
    for wrong in ("recall:0", "recall:-1", "recall:nan"):
        with pytest.raises(UserError, match="must be above 0"):
            RewardOptions(wrong)
    with pytest.raises(UserError, match="twice"):
        RewardOptions("recall,recall:2")
    with pytest.raises(UserError, match="no reward named 'recal'"):
        RewardOptions("recal:1")
    assert dataclasses.replace(reward, outcome="contains").answer_weight == 1
