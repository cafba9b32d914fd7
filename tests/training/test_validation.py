"""Held-out rewards, and the checkpoint that they pick."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import DEMONSTRATED, make_tiny, make_training, options

from memr1_jax.errors import UserError
from memr1_jax.models.hf.hf_weights import load_params
from memr1_jax.models.sampler import Sampling
from memr1_jax.run.metrics_log import MetricsLog, read_metrics, records_of
from memr1_jax.training.checks import check_options
from memr1_jax.training.experiment import Experiment
from memr1_jax.training.validation import make_validation, validation_dialogues


@pytest.mark.parametrize("agent", ["answer", pytest.param("manager", marks=pytest.mark.slow)])
def test_it_is_the_mean_greedy_reward_whatever_the_batch(agent):
    training, tiny = make_training(agent), make_tiny()
    policy, data = training.policy, jax.device_put(training.data)
    # A reward that no response has by chance would be 0 everywhere: form counts as well.
    reward = dataclasses.replace(policy.reward, format_weight=0.5, size_weight=0.25)
    policy = dataclasses.replace(policy, reward=reward)
    frozen, tools, _ = training.arguments
    rows = data.rows
    given = {"rows": 0, "batch": rows}
    one = make_validation(policy, frozen, tools, data, **given)(tiny.model.params)
    other = make_validation(policy, frozen, tools, data, **given | {"batch": 4})
    assert one == pytest.approx(other(tiny.model.params), abs=1e-6)

    every = jnp.arange(rows, dtype=jnp.int32)
    rollout = jax.jit(
        lambda params: policy.rollout(
            *(params, frozen, tools, data.select(every, jnp.ones(rows, bool))),
            *(jax.random.key(5), Sampling.create(0.0)),
            group=1,
        )
    )(tiny.model.params)
    assert one == pytest.approx(float(rollout.rewards.mean()), abs=1e-6)
    few = make_validation(policy, frozen, tools, data, **given | {"rows": 2})
    ends = np.asarray(rollout.rewards)[[0, -1]].mean()
    assert few(tiny.model.params) == pytest.approx(ends, abs=1e-6)


def test_without_dialogues_there_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="--select=validation needs dialogues"):
        validation_dialogues(options(eval_split="validation"), tmp_path, [])


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "mesh"), [("grpo", ""), ("sft", ""), ("grpo", "data:1")])
def test_where_training_only_harms_the_start_goes_on(tmp_path, monkeypatch, algorithm, mesh):
    """Makes the measured reward fall, as the tiny model earns nothing before or after."""
    folder, made, falling = tmp_path / "run", make_validation, itertools.count()

    def measured(*arguments, **options):
        validate = made(*arguments, **options)
        return lambda params: 0.0 * validate(params) - next(falling)

    monkeypatch.setattr("memr1_jax.training.experiment.make_validation", measured)
    given = options(
        output=str(folder),
        algorithm=algorithm,
        mesh=mesh,
        agent="both",
        select="validation",
        checkpoint_every=1,
        learning_rate=1.0,
        kl_weight=0.0,
        evaluate=False,
        **DEMONSTRATED,
    )
    experiment = Experiment(given)
    start = jax.tree.map(np.array, experiment.models.manager.params)
    experiment.run()
    for agent in ("manager", "answer"):
        kept = load_params(folder / "export" / agent)[0]
        jax.tree.map(np.testing.assert_array_equal, kept, start)
        records = records_of(read_metrics(folder / "metrics.jsonl"), agent, "validation")
        rewards = [record["reward"] for record in records]
        assert len(rewards) > 1 and max(rewards) == rewards[0]


@pytest.mark.slow
def test_a_start_that_was_measured_but_not_saved_is_logged_once(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with MetricsLog(folder) as log:
        log.write(0, "validation", "answer", {"reward": 0.5})
    given = {"agent": "answer", "select": "validation", "evaluate": False, "export": False}
    Experiment(options(output=str(folder), resume=True, kl_weight=0.0, **given)).run()
    records = records_of(read_metrics(folder / "metrics.jsonl"), "answer", "validation")
    assert [record["step"] for record in records][:2] == [0, 1]
    assert records[0]["reward"] != 0.5


def test_folds_and_generated_dialogues_are_validated_on(tmp_path):
    given = options(
        data="synthetic",
        select="validation",
        eval_split="test",
        validation_generated=2,
        synthetic_wordings=0.5,
    )
    check_options(given)
    held = [dataclasses.replace(c, id="held") for c in make_tiny().conversations]
    found = validation_dialogues(given, tmp_path, [], held)
    generated = ["validation-generated-0-0", "validation-generated-0-1"]
    assert [c.id for c in found] == ["held"] * len(held) + generated
    assert found == validation_dialogues(given, tmp_path, [], held)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"patience": 2}, "--patience needs --select=validation"),
        ({"validation_folds": 5}, "--validation_folds needs --select=validation"),
        ({"select": "validation", "validation_folds": 1}, "--validation_fold=0 must be below"),
        (
            {"select": "validation", "validation_folds": 3, "validation_fold": 3},
            "--validation_fold=3 must be below --validation_folds=3",
        ),
    ],
)
def test_options_of_validation_that_make_no_sense_are_told(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        check_options(options(**changes))
