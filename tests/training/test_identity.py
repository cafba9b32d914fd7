"""Checks that a run records what it did: options, models, data and prompts are its identity."""

import dataclasses
import json

import pytest
from tiny_model import SIZES, options, tiny_folder, write_model

from memr1_jax.agents.reward import OUTCOMES
from memr1_jax.errors import UserError
from memr1_jax.inference.evaluation import evaluate
from memr1_jax.options import entries
from memr1_jax.run import lock
from memr1_jax.run.checksums import file_digest
from memr1_jax.training.config import EvaluationConfig
from memr1_jax.training.experiment import Experiment
from memr1_jax.training.identity import MAY_TURN_ON, inputs, may_change, open_run


def _begin(folder, **changes):
    """Leaves a folder as a run does that has made a step."""
    with open_run(options(folder, **changes), "training", resume=False):
        (folder / "metrics.jsonl").write_text(
            '{"step": 1, "phase": "train", "agent": "answer", "reward": 0.5}\n'
        )


def _resume(folder, **changes):
    open_run(options(folder, resume=True, **changes), "training", resume=True).close()


def _other(entry):
    value = entry.value
    choices = tuple(OUTCOMES) if entry.flag == "reward" else entry.metadata["choices"]
    if choices:
        return next(choice for choice in choices if choice != value)
    if entry.kind in (bool, str):
        return not value if entry.kind is bool else value + "x"
    return (value or 0) + 1


def test_every_option_is_part_of_the_identity_but_for_a_short_list(tmp_path):
    """Options that are added later are part of it by themselves."""
    folder = tmp_path / "run"
    _begin(folder)
    before = (folder / "run.json").read_bytes()
    made = options(folder)
    found = {entry.flag: entry for entry in entries(made)}
    free = may_change(made) | MAY_TURN_ON
    assert free < found.keys()
    refused = []
    for name, entry in found.items():
        if name in free:
            continue
        value = _other(entry)
        with pytest.raises(UserError) as error:
            _resume(folder, **{name: value})
        assert f"--{name}={value} (was {entry.value})" in str(error.value)
        refused.append(name)
    assert {"synthetic_train", "eval_questions", "eval_split", "bank_builder", "seed", "group"} <= (
        set(refused)
    )
    assert (folder / "run.json").read_bytes() == before
    _resume(folder, manager_steps=9, answer_steps=9, eval_batch=1, checkpoint_every=7)


def test_the_interval_of_checkpoints_counts_where_they_are_compared(tmp_path):
    _begin(tmp_path, select="best")
    with pytest.raises(UserError, match=r"--checkpoint_every=7 \(was 1\)"):
        _resume(tmp_path, select="best", checkpoint_every=7)


def test_other_weights_or_dialogues_under_the_same_name_are_refused(tmp_path):
    model, folder = write_model(tmp_path / "model"), tmp_path / "run"
    _begin(folder, model=str(model))
    path = model / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=f"--model={model}, whose contents have changed"):
        _resume(folder, model=str(model))
    path.write_bytes(whole)
    _resume(folder, model=str(model))
    told = folder / "dialogues.json"
    text = told.read_text()
    told.write_text(text.replace("Hey", "Hi").replace("e", "a", 1))
    with pytest.raises(UserError, match="dialogues.json, whose contents have changed"):
        _resume(folder, model=str(model))
    told.unlink()  # then it is generated again
    _resume(folder, model=str(model))
    assert told.read_text() == text


def test_a_corrected_retry_learns_from_its_own_dialogues(tmp_path):
    with pytest.raises(UserError, match="--max_prompt_length=100 is too short"):
        Experiment(options(tmp_path, max_prompt_length=100))
    first = file_digest(tmp_path / "dialogues.json")
    retry = Experiment(options(tmp_path, synthetic_train=2, seed=5))
    assert len(retry.train_dialogues) == 2
    assert file_digest(tmp_path / "dialogues.json") != first
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["options"]["synthetic_train"] == 2
    assert record["inputs"]["data"]["digest"] == file_digest(tmp_path / "dialogues.json")
    lock.release(tmp_path)


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(UserError, match="Leave one of them out"):
        Experiment(options(tmp_path / "run", resume=True, overwrite=True))
    assert not (tmp_path / "run").exists()


def _evaluation(folder, **changes):
    known = {field.name for field in dataclasses.fields(EvaluationConfig)}
    sizes = {name: value for name, value in SIZES.items() if name in known}
    return EvaluationConfig(
        **sizes
        | {"model": str(tiny_folder()), "output": str(folder), "bank_builder": "add_all"}
        | {"eval_split": "validation", "synthetic_train": 2, "synthetic_eval": 2}
        | changes
    )


def test_an_evaluation_in_the_folder_of_another_is_refused(tmp_path):
    folder = tmp_path / "run"
    first = evaluate(_evaluation(folder))
    assert evaluate(_evaluation(folder)).predictions == first.predictions
    with pytest.raises(UserError, match=r"--seed=1 \(was 0\).*--overwrite"):
        evaluate(_evaluation(folder, seed=1))
    with pytest.raises(UserError, match=r"--eval_questions=2 \(was 3\)"):
        evaluate(_evaluation(folder, eval_questions=2))
    second = evaluate(_evaluation(folder, eval_questions=2, overwrite=True))
    assert [p.question for p in second.predictions] != [p.question for p in first.predictions]
    assert (tmp_path / "run.old-1" / "evaluation_validation.json").is_file()
    with pytest.raises(UserError, match="another command .evaluation, not training."):
        Experiment(options(folder, resume=True))


def test_a_reward_of_ones_own_is_known_by_its_source(tmp_path):
    def pays(answer, gold, report):
        return 1.0

    made = options(tmp_path)
    own = dataclasses.replace(made, reward=made.reward.with_function(pays))
    dialogues = tmp_path / "dialogues.json"
    dialogues.write_text("[]")
    assert "--reward" not in inputs(made, {"synthetic": dialogues})
    found = inputs(own, {"synthetic": dialogues})["--reward"]
    assert found.name.endswith("pays") and found.digest == own.reward.digest()

    def pays(answer, gold, report):
        return 2.0

    other = dataclasses.replace(made, reward=made.reward.with_function(pays))
    assert inputs(other, {"synthetic": dialogues})["--reward"].digest != found.digest


def test_every_file_of_a_mixture_is_known_by_its_content(tmp_path):
    made = options(data="synthetic:1,own:1", data_path=str(tmp_path / "own.jsonl"))
    files = {name: tmp_path / f"{name}.jsonl" for name in ("synthetic", "own")}
    for name, path in files.items():
        path.write_text(name)
    before = inputs(made, files)
    files["own"].write_text("changed")
    after = inputs(made, files)
    assert {n for n in before if before[n].digest != after[n].digest} == {"--data_path of own"}


def test_the_prompt_that_extracts_facts_counts_where_it_is_used():
    name = "prompt of the facts"
    assert name not in inputs(options(), {})
    for used in ({"facts": "extracted"}, {"agent": "extractor"}):
        assert inputs(options(manager_prompt="compact_nano", **used), {})[name].name == (
            "facts_compact_nano"
        )
        assert inputs(options(facts_prompt="compact", **used), {})[name].name == "facts_compact"
