"""The first program of the README, run as it is written there."""

import os
import re
from pathlib import Path

import pytest

import memr1_jax as m1
from memr1_jax.agents.reward import RewardOptions

ROOT = Path(__file__).parents[2]
FIRST, OWN, _ = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
)


def test_the_first_lines_remember_and_answer(capsys):
    begin, train = FIRST.split("run = m1.train")
    exec(begin, names := {})  # noqa: S102
    told = capsys.readouterr().out
    bank = names["bank"]
    assert len(bank) >= 1 and {memory.speaker for memory in bank} == {"Ana"}
    assert told.startswith(f"{bank}\n")
    assert told.removeprefix(f"{bank}\n").strip()
    assert "m1.Config.quickstart()" in train


@pytest.mark.slow
def test_the_first_program_runs_as_it_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(FIRST, names := {})  # noqa: S102
    assert names["run"].table() in capsys.readouterr().out
    assert os.path.isfile("runs/mine/report.html")
    (row,) = [line for line in names["run"].table().splitlines() if "exact_match" in line]
    before, after = map(float, row.split()[-2:])
    assert after > before + 0.2


def test_the_reward_of_the_page_is_one():
    exec(OWN, names := {})  # noqa: S102
    reward = RewardOptions().with_function(names["brief"])
    assert reward.own and m1.Config().reward != reward
