"""Every example runs, with short settings; what it says of itself is true of the long ones."""

import importlib.util
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memr1_jax as m1
from memr1_jax.errors import UserError

ROOT = Path(__file__).parents[2]
FEW = ["--answer_steps=1", "--manager_steps=1", "--dialogues=2"]


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_here():
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    here = {"memory_r1_in_one_file", "own_reward", "talk_to_it"}
    assert names == here | {"chat_with_memory", "memory_tools"}  # see test_memory_examples


def test_memory_r1_in_one_file_can_be_compiled():
    module = example("memory_r1_in_one_file")
    settings = types.SimpleNamespace(
        answer_steps=1, manager_steps=1, batch=2, group=2, learning_rate=3e-4
    )
    world, params = module.make_world(2, 0)
    arrays = {name: getattr(world, name) for name in ("tools", "turns", "questions")}
    traced = module.make_train(world, settings).trace(arrays, params, jax.random.key(0))
    trained, rewards = traced.out_info
    assert [x.shape for x in rewards] == [(1,), (1,)]
    for after in trained:
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, params)


@pytest.mark.slow
def test_memory_r1_in_one_file_trains_both_agents(capsys):
    found = example("memory_r1_in_one_file").main([*FEW, "--batch=2", "--group=2"])
    assert [len(rewards) for rewards in found] == [1, 1]
    assert all(0 <= float(rewards.min()) <= float(rewards.max()) <= 1 for rewards in found)
    told = capsys.readouterr().out
    assert "Answer Agent: reward" in told and "Memory Manager: reward" in told
    lines = (ROOT / "examples" / "memory_r1_in_one_file.py").read_text().splitlines()
    assert len(lines) <= 300


@pytest.mark.slow
def test_memory_r1_in_one_file_learns():
    answer, manager = map(np.asarray, example("memory_r1_in_one_file").main([]))
    assert answer[-8:].mean() > answer[:8].mean() + 0.2
    assert manager[-8:].mean() > manager[:8].mean() + 0.05


def test_an_agent_remembers_what_it_is_told(capsys):
    talk_to_it = example("talk_to_it")
    agents = m1.load("nano", facts="turns")
    lines = ["Ana lives in Oslo.\n", "/memory\n", "Where does Ana live?\n", "\n", "unread\n"]
    memories = talk_to_it.talk(agents, "Ana", lines)
    assert memories.turns == 1 and memories.speakers[0] == "Ana"
    counted, *shown, answer = capsys.readouterr().out.splitlines()
    assert counted == f"(0 -> {len(memories)} memories)"
    assert "\n".join(shown) == str(memories)
    assert answer == agents.answer("Where does Ana live?", memories)


@pytest.mark.slow
def test_a_run_has_a_reward_of_its_own(tmp_path, capsys):
    run = example("own_reward").main([*FEW, f"--output={tmp_path / 'run'}"])
    assert run.table() in capsys.readouterr().out
    assert "training reward of the answer agent" in run.table()


def test_the_reward_of_the_example_is_one(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    reward = m1.Config.quickstart().replace(reward="own_reward:brief").reward
    assert reward.own
    with pytest.raises(UserError, match="cannot be imported"):
        m1.Config.quickstart().replace(reward="own_reward:long")
