"""Every flag file means what it meant: its effective settings, held against a list on disk.

`python -m pytest` compares; run as a script, this file writes the list again.
"""

import dataclasses
import json
from pathlib import Path

import pytest
from absl import flags
from tiny_model import SIZES

from experiments.command_line import define_flags, parsed
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.flag_files import expanded
from memr1_jax.options import flag_values
from memr1_jax.studies.ablation_cells import AblationsConfig
from memr1_jax.studies.learning import LearningConfig
from memr1_jax.studies.nano import NanoConfig
from memr1_jax.studies.nano_judge import NanoJudgeConfig
from memr1_jax.training.build import build_learner
from memr1_jax.training.config import EvaluationConfig, ExperimentConfig, PPOConfig, SFTConfig

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden_settings.json")
FLAG_FILES = ROOT / "experiments" / "flags"
COMMANDS = {
    "locomo_grpo": ExperimentConfig,
    "locomo_ppo": PPOConfig,
    "locomo_sft": SFTConfig,
    "locomo_eval": EvaluationConfig,
    "evaluate": TableConfig,
    "ablations": AblationsConfig,
    "learning": LearningConfig,
    "make_nano": NanoConfig,
    "make_judge": NanoJudgeConfig,
}


def cases() -> dict[str, list[str]]:
    """Arguments by a name that begins with the command: no flags, the tests' own, flag files."""
    found = {f"{command} without flags": [] for command in COMMANDS}
    found["locomo_grpo with the tests' sizes"] = [f"--{k}={v}" for k, v in SIZES.items()]
    for path in sorted(FLAG_FILES.rglob("*.flags")):
        name = str(path.relative_to(FLAG_FILES))
        commands = ("locomo_grpo", "locomo_ppo", "locomo_sft")
        if name.startswith("tables/"):
            commands = ("evaluate",)
        if name == "ablations.flags":
            commands = ("ablations",)
        argument = f"--flagfile={path.relative_to(ROOT)}"
        found |= {f"{command} {name}": [argument] for command in commands}
    return found


def settings_of(case: str, arguments: list[str]) -> dict:
    """Returns all options of a command with these arguments, and the records of a train step."""
    kind, values = COMMANDS[case.split()[0]], flags.FlagValues()
    define_flags(kind, values)
    values(["test", *expanded(arguments)])
    options = parsed(kind, values)
    found = {"options": flag_values(options)}
    if isinstance(options, ExperimentConfig):
        found["learner"] = dataclasses.asdict(build_learner(options, "answer").algorithm)
        reward = dataclasses.asdict(options.reward)
        found["reward"] = {k: v for k, v in reward.items() if k not in ("function", "parts")}
        found["horizon"] = dataclasses.asdict(options.horizon)
    return found


@pytest.mark.parametrize("case", cases())
def test_a_command_and_a_flag_file_mean_what_they_meant(case, monkeypatch):
    monkeypatch.chdir(ROOT)
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[case]
    found = settings_of(case, cases()[case])
    if "horizon" in golden and golden["horizon"] is None:
        assert found.pop("horizon")["scheme"] == "one_step"
        del golden["horizon"]
    for record, values in golden.items():  # options that are newer than the list are not in it
        assert {name: found[record][name] for name in values} == values


def test_the_list_has_all_flag_files():
    assert json.loads(GOLDEN.read_text(encoding="utf-8")).keys() == cases().keys()


if __name__ == "__main__":
    found = {case: settings_of(case, arguments) for case, arguments in cases().items()}
    lines = [f"{json.dumps(case)}: {json.dumps(value)}" for case, value in found.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
