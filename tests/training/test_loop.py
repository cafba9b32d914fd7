"""The loop: the order of the data, and runs that stop and go on."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import make_training

from memr1_jax.errors import UserError
from memr1_jax.rl.metrics import Mean
from memr1_jax.run.checkpoints import Checkpoints
from memr1_jax.run.metrics_log import MetricsLog, read_metrics
from memr1_jax.run.preemption import Preempted
from memr1_jax.training.loop import Stage, batch_rows, fingerprint, metric_values, resume, train


@given(st.integers(0, 100), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))
def test_every_epoch_holds_every_row_once(seed, rows, batch, epochs):
    steps = -(-rows * epochs // batch)
    order = np.concatenate([batch_rows(seed, step, rows, batch) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(order[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    assert order.dtype == np.int32 and len(order) == steps * batch


def test_the_order_depends_on_seed_and_epoch_alone():
    steps = [batch_rows(3, step, 50, 10) for step in range(10)]
    np.testing.assert_array_equal(steps[7], batch_rows(3, 7, 50, 10))
    first, second = np.concatenate(steps[:5]), np.concatenate(steps[5:])
    assert not np.array_equal(first, second) and not np.array_equal(first, np.arange(50))
    assert not np.array_equal(steps[0], batch_rows(4, 0, 50, 10))


def _stage(agent, steps, **identity):
    return Stage(agent, steps, 2, 0, 2, 1, {"model": "tiny", "pair": (1, 2), **identity})


def _run(agent, folder, steps, go_on=False, watch=None, **identity):
    """Trains in a folder; returns the last state and the metrics of all steps."""
    folder.mkdir(exist_ok=True)
    training, stage = make_training(agent), _stage(agent, steps, **identity)
    with MetricsLog(folder) as log, Checkpoints(folder / "checkpoints") as checkpoints:
        state = training.state()
        if go_on:
            state = resume(checkpoints, stage, state)
        log.rewind(agent, int(state.step))
        state = train(
            stage,
            training.step,
            state,
            training.arguments,
            training.data.rows,
            folder=folder,
            checkpoints=checkpoints,
            log=log,
            describe=lambda rollout: [{"rewards": rollout.rewards.tolist()}],
            **(watch or {}),
        )
    clocks = ("seconds", "tokens_per_second")
    metrics = [
        {name: value for name, value in record.items() if name not in clocks}
        for record in read_metrics(folder / "metrics.jsonl")
    ]
    return state, metrics


def _assert_same(first, second):
    for left, right in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("agent", ["answer", "manager"])
def test_a_resumed_run_is_the_uninterrupted_one(agent, tmp_path):
    whole, metrics = _run(agent, tmp_path / "whole", 5)
    _run(agent, tmp_path / "parts", 3)
    # A step that was done but not saved is done again.
    log = tmp_path / "parts" / "metrics.jsonl"
    log.write_text(log.read_text() + json.dumps({**metrics[3], "reward": 99.0}) + "\n")
    resumed, again = _run(agent, tmp_path / "parts", 5, go_on=True)
    _assert_same(resumed, whole)
    assert again == metrics and [record["step"] for record in again] == [1, 2, 3, 4, 5]
    for step in range(1, 6):
        name = f"samples/{agent}/step_{step:06d}.json"
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_finished_run_is_left_as_it_is(tmp_path):
    state, metrics = _run("answer", tmp_path / "run", 2)
    again, same = _run("answer", tmp_path / "run", 2, go_on=True)
    _assert_same(again, state)
    assert same == metrics


def test_other_settings_are_named_and_nothing_is_lost(tmp_path):
    _run("answer", tmp_path / "run", 2)
    with pytest.raises(UserError, match=r"other settings: model \(was 'tiny'\).*--output"):
        _run("answer", tmp_path / "run", 4, go_on=True, model="another")
    _, metrics = _run("answer", tmp_path / "run", 4, go_on=True)
    assert [record["step"] for record in metrics] == [1, 2, 3, 4]


def test_what_was_off_as_0_is_off_as_none():
    """Checkpoints of the version before resume: it wrote 0 where None is written now."""

    def checkpoints(**identity):
        return types.SimpleNamespace(
            folder="run", latest_step=lambda: 1, restore=lambda _: ("state", {"identity": identity})
        )

    now = Stage("answer", 1, 1, 0, 1, 1, identity={"dual_clip": None, "group": 5})
    assert resume(checkpoints(dual_clip=0.0, group=5), now, None) == "state"
    with pytest.raises(UserError, match=r"dual_clip \(was 3.0\)"):
        resume(checkpoints(dual_clip=3.0, group=5), now, None)


def test_a_folder_without_checkpoints_starts_anew(tmp_path):
    state = make_training("answer").state()
    with Checkpoints(tmp_path) as checkpoints:
        assert resume(checkpoints, _stage("answer", 1), state) is state


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    training = make_training("answer")

    def broken(*arguments):
        state, metrics, rollout = training.step(*arguments)
        return state, metrics | {"loss": Mean(jnp.float32(jnp.nan), jnp.float32(1))}, rollout

    with (
        MetricsLog(tmp_path) as log,
        Checkpoints(tmp_path / "checkpoints") as checkpoints,
        pytest.raises(UserError, match="not a number at step 1"),
    ):
        train(
            _stage("answer", 2),
            broken,
            training.state(),
            training.arguments,
            training.data.rows,
            folder=tmp_path,
            checkpoints=checkpoints,
            log=log,
            describe=lambda rollout: [],
        )
    assert not list((tmp_path / "checkpoints").iterdir())


def test_validation_scores_the_start_and_every_checkpoint(tmp_path):
    scores, asked = iter([0.5, 0.25, 0.75, 0.6]), []

    def validate(params):
        asked.append(params)
        return next(scores)

    def run(steps, stop=lambda: False):
        watch = {"validate": validate, "stop": stop}
        _, metrics = _run("answer", tmp_path, steps, go_on=True, watch=watch)
        with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
            return checkpoints.best_step(), metrics

    with pytest.raises(Preempted):
        run(4, stop=lambda: True)  # in a hurry after the first step, which is saved unmeasured
    assert len(asked) == 1
    assert run(2)[0] == 0 and len(asked) == 2  # the start is better than step 2
    best, records = run(5)
    assert best == 4 and len(asked) == 4  # steps 4 and 5
    measured = {r["step"]: r["reward"] for r in records if r["phase"] == "validation"}
    assert measured == {0: 0.5, 2: 0.25, 4: 0.75, 5: 0.6}


def test_metrics_are_sums_over_weights():
    means = {"b": Mean(jnp.float32(3), jnp.float32(4)), "a": Mean(jnp.float32(0), jnp.float32(0))}
    assert metric_values(means) == {"a": 0.0, "b": 0.75}


def test_a_fingerprint_tells_data_apart():
    data = {"a": np.arange(6, dtype=np.int32), "b": jnp.zeros((2, 3))}
    assert fingerprint(data) == fingerprint(jax.tree.map(jnp.asarray, data))
    changed = {**data, "a": np.array([0, 1, 2, 3, 4, 6], np.int32)}
    assert fingerprint(changed) != fingerprint(data)
    assert len(fingerprint(data)) == 16
