"""The loop: the order of the data, and runs that stop and resume."""

import functools
import itertools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import make_training

from memr1_jax.agents.rollout import Rollout
from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Block
from memr1_jax.models.sampler import Samples
from memr1_jax.rl.losses import LossTerms
from memr1_jax.rl.means import Mean, masked_mean
from memr1_jax.rl.minibatches import optimiser_step
from memr1_jax.rl.update import create_optimizer, create_state
from memr1_jax.run import files
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


def _stage(agent, steps, patience=0, **identity):
    about = {"model": "tiny", "pair": (1, 2), **identity}
    return Stage(agent, steps, 2, 0, 2, 1, about, patience=patience)


@functools.cache
def _quick():
    """Makes a training of eight weights: its step draws, learns and skips as an agent's does."""
    optimizer = create_optimizer(1e-2)

    def state(seed=0):
        return create_state({"final_norm": {"scale": jnp.ones(8)}}, optimizer, seed)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, data, rows, valid):
        drawn = data[rows, None] + jax.random.normal(state.rollout_key(), (len(rows), 2))

        def loss(params):
            return jnp.square(drawn - params["final_norm"]["scale"].sum()).mean()

        value, gradient = jax.value_and_grad(loss)(state.params)
        params, opt_state, metrics = optimiser_step(
            optimizer, gradient, LossTerms(value, {}), state.params, state.opt_state
        )
        tokens, length = jnp.int32(drawn)[..., None], jnp.ones(drawn.shape, jnp.int32)
        rollout = Rollout(
            Block(tokens[:, 0], length[:, 0]),
            Samples(tokens, length, drawn[..., None], length > 0),
            rewards=drawn,
            valid=valid,
            shown=length[:, 0],
            metrics={},
        )
        metrics |= {"reward": masked_mean(drawn, valid[:, None])}
        after = state.replace(params=params, opt_state=opt_state, step=state.step + 1)
        return after, metrics, rollout

    data = types.SimpleNamespace(rows=8)
    return types.SimpleNamespace(state=state, step=step, arguments=(jnp.arange(8.0),), data=data)


def _run(agent, folder, steps, go_on=False, watch=None, step=None, training=None, **identity):
    """Trains in a folder; returns the last state and the metrics of all steps."""
    folder.mkdir(exist_ok=True)
    training, stage = training or _quick(), _stage(agent, steps, **identity)
    with MetricsLog(folder) as log, Checkpoints(folder / "checkpoints") as checkpoints:
        state = training.state()
        if go_on:
            state = resume(checkpoints, stage, state)
        log.rewind(agent, int(state.step))
        state = train(
            stage,
            step or training.step,
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


def _made(step, agent):
    return _quick() if step == "quick" else make_training(agent)


# The loop does the same with any step; `test_resampling` resumes an agent's own.
STEPS = pytest.mark.parametrize(
    ("step", "agent"),
    [
        ("quick", "answer"),
        *(pytest.param("real", agent, marks=pytest.mark.slow) for agent in ("answer", "manager")),
    ],
)


@STEPS
def test_a_resumed_run_is_the_uninterrupted_one(step, agent, tmp_path):
    run = functools.partial(_run, agent, training=_made(step, agent))
    whole, metrics = run(tmp_path / "whole", 5)
    run(tmp_path / "parts", 3)
    # A step that was done but not saved is done again.
    log = tmp_path / "parts" / "metrics.jsonl"
    log.write_text(log.read_text() + json.dumps({**metrics[3], "reward": 99.0}) + "\n")
    resumed, again = run(tmp_path / "parts", 5, go_on=True)
    _assert_same(resumed, whole)
    assert again == metrics and [record["step"] for record in again] == [1, 2, 3, 4, 5]
    for step in range(1, 6):
        name = f"samples/{agent}/step_{step:06d}.json"
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_run_stops_where_validations_no_longer_get_better(tmp_path, capsys):
    rewards = {0: 0.1, 2: 0.5, 4: 0.4, 6: 0.5, 8: 0.9}

    def run(folder, steps, **options):
        measured = iter([rewards[step] for step in rewards if not options or step > 4])
        watch = {"validate": lambda params: next(measured)}
        return _run("answer", folder, steps, watch=watch, patience=2, **options)

    whole, metrics = run(tmp_path / "whole", 20)
    assert int(whole.step) == 6
    assert "stops at step 6 of 20: no validation was better than 0.5" in capsys.readouterr().out
    assert int(run(tmp_path / "parts", 4)[0].step) == 4
    resumed, again = run(tmp_path / "parts", 20, go_on=True)
    _assert_same(resumed, whole)
    assert again == metrics
    # It has stopped for good, and learns nothing more.
    assert int(run(tmp_path / "whole", 30, go_on=True)[0].step) == 6


def test_a_run_that_a_full_disk_ended_is_the_uninterrupted_one_when_resumed(tmp_path, monkeypatch):
    whole, metrics = _run("answer", tmp_path / "whole", 4)
    for place in (
        "memr1_jax.run.metrics_log.append_whole",
        "memr1_jax.training.loop.write_json_atomic",
    ):
        folder, calls = tmp_path / place, []
        name = place.rpartition(".")[2]
        write = getattr(files, name)

        def full(*arguments, write=write, calls=calls):
            calls.append(arguments)
            if len(calls) == 4:
                raise files.cannot_write("the file", OSError(28, "No space left on device"))
            return write(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with pytest.raises(UserError, match="the file could not be written .No space left"):
                _run("answer", folder, 4)
        resumed, again = _run("answer", folder, 4, go_on=True)
        _assert_same(resumed, whole)
        assert again == metrics


def test_a_finished_run_is_left_as_it_is(tmp_path):
    state, metrics = _run("answer", tmp_path / "run", 2)
    again, same = _run("answer", tmp_path / "run", 2, go_on=True)
    _assert_same(again, state)
    assert same == metrics


def test_other_settings_are_named_and_nothing_is_lost(tmp_path):
    _run("answer", tmp_path / "run", 2)
    with pytest.raises(UserError, match=r"other settings: model=another \(was tiny\).*--output"):
        _run("answer", tmp_path / "run", 4, go_on=True, model="another")
    _, metrics = _run("answer", tmp_path / "run", 4, go_on=True)
    assert [record["step"] for record in metrics] == [1, 2, 3, 4]
    with pytest.raises(UserError, match="already learned for 4 steps, more than the 3"):
        _run("answer", tmp_path / "run", 3, go_on=True)


def test_what_was_off_as_0_is_off_as_none():
    """Checkpoints of the version before resume: it wrote 0 where None is written now."""

    state = types.SimpleNamespace(step=1)

    def checkpoints(**identity):
        return types.SimpleNamespace(
            folder="run", latest_step=lambda: 1, restore=lambda _: (state, {"identity": identity})
        )

    now = Stage("answer", 1, 1, 0, 1, 1, identity={"dual_clip": None, "group": 5})
    assert resume(checkpoints(dual_clip=0.0, group=5), now, None) is state
    with pytest.raises(UserError, match=r"dual_clip=None \(was 3.0\)"):
        resume(checkpoints(dual_clip=3.0, group=5), now, None)


def test_a_folder_without_checkpoints_starts_anew(tmp_path):
    state = _quick().state()
    with Checkpoints(tmp_path) as checkpoints:
        assert resume(checkpoints, _stage("answer", 1), state) is state


def _poisoned(training, steps):
    """Returns the train step, for which some calls get weights that are not numbers."""
    calls = itertools.count()

    def step(state, *arguments):
        if next(calls) not in steps:
            return training.step(state, *arguments)
        kept = jax.tree.map(jnp.copy, (state.params, state.opt_state))
        spoiled = jax.tree.map(lambda x: x * jnp.nan, state.params)
        after, metrics, rollout = training.step(state.replace(params=spoiled), *arguments)
        params, opt_state = kept
        return after.replace(params=params, opt_state=opt_state), metrics, rollout

    return step


@STEPS
def test_a_step_without_a_finite_gradient_is_skipped_counted_and_said(
    step, agent, tmp_path, capsys
):
    training = _made(step, agent)
    poisoned = _poisoned(training, {1})
    _, records = _run(agent, tmp_path / "run", 4, step=poisoned, training=training)
    assert [record["not_finite"] for record in records] == [0, 1, 0, 0]
    assert "loss" not in records[1] and "loss" in records[2]
    assert f"Step 2 of the {agent} agent skipped 100% of its updates" in capsys.readouterr().out
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.best_step() is not None


def test_a_few_such_steps_in_a_row_stop_the_run_which_can_be_resumed(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="3 steps in a row.*saved as step 4.*--resume"):
        _run("answer", folder, 6, step=_poisoned(_quick(), {1, 2, 3}))
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        saved, _ = checkpoints.restore(_quick().state())
    after_one, _ = _run("answer", tmp_path / "one", 1)
    _assert_same(saved.params, after_one.params)
    state, records = _run("answer", folder, 6, go_on=True)
    assert int(state.step) == 6 and [r["not_finite"] for r in records] == [0, 1, 1, 1, 0, 0]


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    training = _quick()

    def step(state, *arguments):
        state, metrics, rollout = training.step(state, *arguments)
        if int(state.step) == 3:
            state = state.replace(params=jax.tree.map(lambda x: x / 0.0, state.params))
        return state, metrics, rollout

    with pytest.raises(UserError, match="not finite after step [34].*last checkpoint is step 2"):
        _run("answer", tmp_path / "run", 5, step=step)
    state, _ = _run("answer", tmp_path / "run", 3, go_on=True)
    assert np.isfinite(state.params["final_norm"]["scale"]).all()


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
