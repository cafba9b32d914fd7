"""Episodes on the device against the same turns taken one by one.

The two episodes have four turns and two, so that two of eight are padding.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import episode_data, make_tiny

from memr1_jax.agents.consult import FrozenAnswerer, Marking
from memr1_jax.agents.episode_rollout import (
    HorizonOptions,
    branch_outcome,
    choose_branch,
    episode_rollout,
)
from memr1_jax.agents.ingest import ingest, make_ingest_turn
from memr1_jax.agents.judge import Judge
from memr1_jax.agents.manager import apply_response, manager_prompt
from memr1_jax.agents.reward import RewardOptions
from memr1_jax.agents.rollout import manager_rollout
from memr1_jax.agents.templates import load_template
from memr1_jax.data.batches import ManagerBatch
from memr1_jax.models.sampler import Sampling
from memr1_jax.rl.advantages import group_advantages
from memr1_jax.rl.trajectories import returns
from memr1_jax.run.streams import named_key
from memr1_jax.training.step import experience_of

GROUP, TURNS = 2, 4
PRESENT = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
# Answers are marked by a judge: its odds differ wherever answers do.
REWARD = RewardOptions("judge", outcome_weight=0.5, size_weight=1.0)


@functools.cache
def _agents():
    tiny = make_tiny()
    template = load_template("judge_compact", tiny.model.tokenizer)
    judge = Judge(template, tiny.model.decoder, yes=(79, 379), no=(80, 300, 649), answer_width=8)
    answerer = FrozenAnswerer(tiny.pair.answerer, tiny.model.decoder, together=5)
    return tiny.pair.manager, tiny.model.decoder, answerer, judge


@functools.cache
def _program(scheme):
    """Compiles `run(params, tools, batch, key, sampling)` once for all tests of this module."""
    manager, decoder, answerer, judge = _agents()

    @jax.jit
    def run(params, tools, batch, key, sampling):
        shared = (manager, decoder, params, answerer, params, tools, batch, key, sampling)
        options = {"marking": Marking(REWARD, judge, params), "group": GROUP}
        if scheme == "one_step":
            return manager_rollout(*shared, **options)
        return episode_rollout(HorizonOptions(scheme, final_weight=0.5), *shared, **options)

    return run


@functools.cache
def _sparing(share):
    """Compiles branches at a share of the turns."""
    manager, decoder, answerer, judge = _agents()
    horizon = HorizonOptions("branches", final_weight=0.5, branch_share=share)

    @jax.jit
    def run(params, tools, batch, key, sampling):
        shared = (manager, decoder, params, answerer, params, tools, batch, key, sampling)
        return episode_rollout(
            horizon, *shared, marking=Marking(REWARD, judge, params), group=GROUP
        )

    return run


def _run(scheme, batch, temperature=1.0, params=None):
    tiny = make_tiny()
    params = tiny.model.params if params is None else params
    sampling = Sampling.create(temperature)
    return _program(scheme)(params, tiny.pair.tools, batch, jax.random.key(3), sampling)


@pytest.fixture(scope="module")
def data(tiny):
    return episode_data(tiny)


@pytest.fixture(scope="module")
def batch(data):
    found = data.select(jnp.arange(2), jnp.ones(2, bool))
    np.testing.assert_array_equal(found.turns.present, PRESENT)
    return found


@pytest.fixture(scope="module")
def branches(batch):
    return jax.device_get(_run("branches", batch))


def _judged(batch):
    """Tells which turns have a question, own or due, written out."""
    due, asked = np.asarray(batch.due), np.asarray(batch.asked)
    local = np.asarray(batch.turns.asked).any(-1)
    final = [[(asked[b] & (due[b] <= t)).any() for t in range(TURNS)] for b in range(2)]
    return PRESENT & (local | np.array(final)), PRESENT & local, PRESENT & np.array(final)


def test_groups_are_formed_per_snapshot(batch, branches):
    rollout = branches.rollout
    judged, _, _ = _judged(batch)
    np.testing.assert_array_equal(rollout.valid, judged.reshape(-1))
    assert rollout.trajectories is None
    rewards = rollout.rewards
    assert rewards.shape == (2 * TURNS, GROUP)
    assert (rewards[~rollout.valid] == 0).all()
    apart = np.ptp(rewards, axis=1) > 0
    assert apart.sum() > 2 and not apart[~rollout.valid].any()
    experience = experience_of(rollout)
    scores, _ = returns(experience.trajectories, experience.rewards, experience.valid)
    # Of a pair, half the difference over the deviation: 1 / sqrt(2), whatever the scale.
    sign = np.sign(rewards[:, 0] - rewards[:, 1])
    expected = np.stack([sign, -sign], axis=1) * np.sqrt(0.5)
    np.testing.assert_allclose(group_advantages(scores), expected, atol=1e-2)


@pytest.mark.slow
def test_branches_at_a_share_of_the_turns_are_rows_of_these_alone(tiny, batch, branches):
    horizon = HorizonOptions("branches", branch_share=0.5)
    assert [horizon.compared(turns) for turns in (1, 4, 5)] == [1, 2, 3]
    assert HorizonOptions("terminal", branch_share=0.5).compared(4) == 4
    key, sampling = jax.random.key(3), Sampling.create(0.0)
    arguments = (tiny.model.params, tiny.pair.tools, batch, key, sampling)
    some = jax.device_get(_sparing(0.5)(*arguments))
    turns = np.sort(jax.random.permutation(named_key(key, "compared"), TURNS)[:2])
    every = jax.device_get(_program("branches")(*arguments))
    # Greedily, all samples of a turn are equal, so the trunk is the same wherever it branches.
    rows = np.concatenate([episode * TURNS + turns for episode in range(2)])
    assert some.rollout.valid.sum() > 0
    for name in ("prompt", "samples", "rewards", "valid", "shown"):
        for left, right in zip(
            jax.tree.leaves(getattr(some.rollout, name)),
            jax.tree.leaves(getattr(every.rollout, name)),
            strict=True,
        ):
            np.testing.assert_allclose(left, right[rows], rtol=1e-5, atol=1e-6)
    for left, right in zip(jax.tree.leaves(some.banks), jax.tree.leaves(every.banks), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    present = PRESENT[:, turns].sum()
    assert float(some.rollout.metrics["bank_size"].weight) == present * GROUP


def test_banks_are_those_of_the_turns_taken_one_by_one(tiny, batch, branches):
    manager, tools = tiny.pair.manager, tiny.pair.tools

    @jax.jit
    def turn(tools, bank, facts, tokens, length):
        prompt = manager_prompt(manager, tools, bank, facts)
        return prompt, apply_response(manager, tools, bank, prompt, facts, tokens, length)[0]

    rollout, edits = branches.rollout, 0
    assert len({*branches.chosen[0], *branches.chosen[1]}) == GROUP  # not always the same branch
    for episode in range(2):
        banks = [jax.tree.map(lambda x, e=episode: x[e], bank) for bank in batch.banks]
        for index in np.flatnonzero(PRESENT[episode]):
            row, chosen = episode * TURNS + index, branches.chosen[episode, index]
            facts = jax.tree.map(lambda x, e=episode, i=index: x[e, i], batch.turns.facts)
            speaker = int(batch.turns.speaker[episode, index])
            samples = rollout.samples.tokens[row, chosen], rollout.samples.length[row, chosen]
            prompt, after = turn(tools, banks[speaker], facts, *map(jnp.asarray, samples))
            np.testing.assert_array_equal(rollout.prompt.tokens[row], prompt.tokens)
            assert rollout.shown[row] == prompt.shown
            edits += not np.array_equal(after.alive, banks[speaker].alive)
            banks[speaker] = after
        for found, expected in zip(branches.banks, banks, strict=True):
            _assert_same_bank(jax.tree.map(lambda x, e=episode: x[e], found), expected)
    assert edits > 1


def _assert_same_bank(found, expected):
    for field in dataclasses.fields(found):
        left, right = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_allclose(left, right, atol=1e-6, err_msg=field.name)


def test_metrics_count_what_there_is(batch, branches):
    metrics = branches.rollout.metrics
    judged, local, final = _judged(batch)
    due, asked = np.asarray(batch.due), np.asarray(batch.asked)
    questions = int(np.asarray(batch.turns.asked)[PRESENT].sum()) + sum(
        int((asked[b] & (due[b] <= t)).sum()) for b, t in zip(*np.nonzero(PRESENT), strict=True)
    )
    weights = {
        **{"response_length": PRESENT.sum(), "reward_size": judged.sum(), "judge": questions},
        **{"local_outcome": local.sum(), "final_outcome": final.sum(), "end_outcome": 2},
    }
    for name, weight in weights.items():
        assert metrics[name].weight == weight * GROUP, name
    assert metrics["memories_shown"].weight == PRESENT.sum()
    assert metrics["final_bank_size"].weight == 4
    mean = branches.rollout.rewards[branches.rollout.valid].mean()
    parts = sum(metrics[f"reward_{part}"].value() for part in ("outcome", "format", "size"))
    np.testing.assert_allclose(parts, mean, rtol=1e-5)


def test_masked_turns_contribute_nothing(batch, branches):
    def spoil(x):
        """Puts other content where an episode has no turn."""
        absent = ~PRESENT.reshape(2, TURNS, *[1] * (x.ndim - 2))
        return jnp.where(absent, x[:1, :1], x).astype(x.dtype)

    turns = jax.tree.map(spoil, batch.turns).replace(present=batch.turns.present)
    assert bool(turns.asked[1, 3].any()) and bool(turns.facts.length[1, 3].any())
    spoiled = jax.device_get(_run("branches", batch.replace(turns=turns)))
    assert (branches.rollout.samples.length[~PRESENT.reshape(-1)] == 0).all()
    present, others = PRESENT.reshape(-1), branches.rollout
    for found, expected in ((spoiled.rollout, others),):
        np.testing.assert_array_equal(found.prompt.tokens[present], expected.prompt.tokens[present])
    same = (spoiled.banks, spoiled.rollout.samples, spoiled.rollout.rewards)
    same += (spoiled.rollout.valid, spoiled.rollout.metrics)
    expected = (branches.banks, others.samples, others.rewards, others.valid, others.metrics)
    jax.tree.map(np.testing.assert_array_equal, same, expected)


def test_both_outcomes_of_a_branch_are_weighed():
    scores = jnp.array([[[1.0, 0, 0.5, 9]], [[1, 9, 9, 9]], [[9, 9, 0.5, 0]], [[9, 9, 9, 9]]])
    local = jnp.array([[1, 1], [1, 0], [0, 0], [1, 1]], bool)
    final = jnp.array([[1, 0], [0, 0], [1, 1], [1, 1]], bool)
    sets = {"local": (3.0, None, local), "final": (1.0, None, final)}
    valid = jnp.array([True, True, True, False])
    parts, judged, outcome = branch_outcome(sets, scores, valid)
    assert parts["local"][0][:, 0].tolist() == [0.5, 1.0, 0.0, 0.0]
    assert parts["final"][0][:, 0].tolist() == [0.5, 0.0, 0.25, 0.0]
    assert parts["final"][1].tolist() == [True, False, True, False]
    assert judged.tolist() == [True, True, True, False]
    assert outcome[:, 0].tolist() == [0.5, 1.0, 0.25, 0.0]
    scores = scores.at[0, 0, 2].set(1.0)
    assert branch_outcome(sets, scores, valid)[2][0, 0] == (3 * 0.5 + 1.0) / 4


def test_the_trunk_goes_on_with_the_best_branch_or_with_any():
    rewards = jnp.array([[0.0, 3.0, 1.0], [2.0, 2.0, 1.0]])
    assert choose_branch("best", rewards, jax.random.key(0)).tolist() == [1, 0]
    many = jnp.broadcast_to(rewards[0], (3000, 3))
    chosen = np.asarray(choose_branch("sampled", many, jax.random.key(0)))
    assert np.abs(np.bincount(chosen, minlength=3) / 3000 - 1 / 3).max() < 0.04
    other = np.asarray(choose_branch("sampled", -many, jax.random.key(0)))
    np.testing.assert_array_equal(chosen, other)  # whatever they earn
    with pytest.raises(ValueError, match="'worst'"):
        HorizonOptions(trunk="worst")


def _first_turn(batch):
    """Returns the first turns alone, as an episode of one turn and as a batch of single turns.

    The questions at the end are those that the turn bears on.
    """
    turns = batch.turns.replace(present=jnp.asarray(PRESENT & (np.arange(TURNS) == 0)))
    width = turns.asked.shape[-1]
    asked = jnp.zeros_like(batch.asked).at[:, :width].set(True).at[0, 1].set(False)
    local = turns.replace(asked=turns.asked.at[:, 0].set(asked[:, :width]))
    first = jax.tree.map(lambda x: x[:, 0], local)
    queries = jax.tree.map(lambda x, y: x.at[:, :width].set(y), batch.queries, first.queries)
    episode = batch.replace(
        turns=local, queries=queries, asked=asked, due=jnp.zeros_like(batch.due)
    )
    own, other = batch.banks
    assert not own.alive.any() and not other.alive.any()  # so it does not matter whose is which
    single = ManagerBatch(
        own, other, first.speaker, batch.scene, first.facts, first.queries, first.asked, batch.valid
    )
    return episode, single


@pytest.fixture(scope="module")
def one_step(batch):
    return jax.device_get(_run("one_step", _first_turn(batch)[1]))


@pytest.mark.slow
def test_branches_of_one_turn_are_the_one_step_rollout(batch, one_step):
    found = jax.device_get(_run("branches", _first_turn(batch)[0])).rollout
    rows = [0, TURNS]
    assert np.flatnonzero(found.valid).tolist() == rows
    for name in ("tokens", "length"):
        left, right = getattr(found.samples, name)[rows], getattr(one_step.samples, name)
        np.testing.assert_array_equal(left, right)
        left, right = getattr(found.prompt, name)[rows], getattr(one_step.prompt, name)
        np.testing.assert_array_equal(left, right)
    np.testing.assert_allclose(found.rewards[rows], one_step.rewards, atol=1e-5)
    assert np.ptp(one_step.rewards, axis=1).max() > 0
    for name, mean in one_step.metrics.items():
        np.testing.assert_allclose(
            found.metrics[name].value(), mean.value(), atol=1e-5, err_msg=name
        )


@pytest.mark.slow
def test_one_reward_at_the_end_belongs_to_all_steps(batch, one_step):
    found = jax.device_get(_run("terminal", batch))
    rollout = found.rollout
    assert (rollout.trajectories.group, rollout.trajectories.steps) == (GROUP, TURNS)
    rewards = rollout.rewards.reshape(2, GROUP, TURNS)
    valid = rollout.valid.reshape(2, GROUP, TURNS)
    np.testing.assert_array_equal(valid, np.repeat(PRESENT[:, None], GROUP, axis=1))
    assert (rewards[~valid] == 0).all()
    assert (rollout.samples.length[~rollout.valid] == 0).all()
    for b, g in np.ndindex(2, GROUP):
        assert len(set(rewards[b, g][valid[b, g]])) == 1
    assert (rewards[:, 0, 0] != rewards[:, 1, 0]).any()
    experience = experience_of(rollout)
    scores, _ = returns(experience.trajectories, experience.rewards, experience.valid)
    np.testing.assert_array_equal(scores, rewards[:, :, 0])
    assert rollout.metrics["judge"].weight == GROUP * np.asarray(batch.asked).sum()
    assert rollout.metrics["reward_size"].weight == 2 * GROUP

    # A single turn is a group of one-step samples, rewarded for the same answers.
    episode, _ = _first_turn(batch)
    single = jax.device_get(_run("terminal", episode)).rollout
    rows = np.arange(0, 2 * GROUP * TURNS, TURNS)
    assert np.flatnonzero(single.valid).tolist() == rows.tolist()
    tokens = single.samples.tokens[rows, 0].reshape(2, GROUP, -1)
    np.testing.assert_array_equal(tokens, one_step.samples.tokens)
    outcome = single.metrics["reward_outcome"].value()
    np.testing.assert_allclose(outcome, one_step.metrics["reward_outcome"].value(), atol=1e-5)
    size = single.metrics["reward_size"].value()  # the mean over two banks, one of them empty
    np.testing.assert_allclose(2 * size, one_step.metrics["reward_size"].value(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["branches", "terminal"])
def test_greedy_episodes_end_with_the_banks_of_ingestion(tiny, batch, scheme):
    """Reads the first episode's facts by the loop on the host that evaluations use."""
    (dialogue,) = tiny.conversations
    sources = set(np.asarray(batch.turns.facts.source[0]).tolist())
    told = [f for f in dialogue.facts if dialogue.positions[f.sources[-1]] in sources]
    dialogue = dataclasses.replace(dialogue, facts=tuple(told), operations=())
    params = jax.tree.map(lambda x: x * 0.8, tiny.model.params)  # prefers to add
    read = make_ingest_turn(tiny.pair.manager, tiny.model.decoder)
    expected = ingest(read, params, tiny.pair.tools, tiny.pair.encoder, [dialogue])
    assert expected.counts["turns"] == TURNS and expected.counts["add"] > 1
    found = jax.device_get(_run(scheme, batch, temperature=0.0, params=params))
    for speaker in (0, 1):
        first = jax.tree.map(lambda x: x[0], expected.banks[speaker])
        _assert_same_bank(jax.tree.map(lambda x: x[0], found.banks[speaker]), first)
