"""Every flag file is one that its command takes, and says what its name says."""

import dataclasses
import warnings
from pathlib import Path

import pytest
from absl import flags

from experiments.command_line import define_flags, parsed
from memr1_jax.bench.tables.models import split_name
from memr1_jax.bench.tables.table_config import TableConfig, check_table
from memr1_jax.data.benchmarks import BENCHMARKS
from memr1_jax.errors import UserError
from memr1_jax.flag_files import expanded
from memr1_jax.options import with_options
from memr1_jax.studies.ablation_cells import AblationsConfig, plan
from memr1_jax.studies.nano import NANO_DIALOGUES, NANO_SIZES
from memr1_jax.training.build import warmup_steps
from memr1_jax.training.checks import check_options
from memr1_jax.training.config import ExperimentConfig

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "experiments/flags/tables"
ABLATIONS = ROOT / "experiments/flags/ablations.flags"
FILES = sorted(
    path.relative_to(ROOT)
    for path in ROOT.glob("experiments/flags/**/*.flags")
    if path.parent != TABLES and path != ABLATIONS
)
TABLE_FILES = sorted(path.relative_to(ROOT) for path in TABLES.glob("*.flags"))
PAPER = [
    f"{model}_{algorithm}"
    for model in ("llama31_8b", "qwen25_3b", "qwen25_7b", "qwen25_14b")
    for algorithm in ("grpo", "ppo")
] + ["qwen3_4b_grpo", "gemma3_1b_grpo", "gemma3_4b_grpo"]


def options_of(path: Path, options: type = ExperimentConfig):
    values = flags.FlagValues()
    define_flags(options, values)
    values(["test", *expanded([f"--flagfile={path}"])])
    return parsed(options, values)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_flag_file_is_accepted(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_options(options_of(path))


@pytest.mark.parametrize("path", TABLE_FILES, ids=str)
def test_a_flag_file_of_a_table_is_accepted(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = options_of(path, TableConfig)
    check_table(options)
    for row in options.rows.split(","):
        split_name(options, row)
    assert options.data in (*BENCHMARKS, "synthetic")
    if not path.stem.startswith("common"):
        assert options.output == f"runs/tables/{path.stem}"


def test_the_flag_file_of_the_ablations_names_every_option_and_the_judge_of_the_nano_model():
    options = options_of(ABLATIONS, AblationsConfig)
    assert options == AblationsConfig(judge_model="nano_judge")
    assert list(plan(options)) == options.tables.split(",")
    named = {line[2:].split("=")[0] for line in ABLATIONS.read_text().splitlines() if "=" in line}
    assert {f.name for f in dataclasses.fields(options)} - {
        "overwrite",
        "compilation_cache",
    } <= named


@pytest.mark.parametrize("name", PAPER)
def test_the_settings_of_the_paper(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = options_of(Path("experiments/flags") / f"{name}.flags")
    assert options.algorithm == name.rsplit("_", 1)[1]
    assert (options.batch, options.learning_rate) == (128, 1e-6)
    assert options.reward.outcome == "exact_match"
    assert (options.max_prompt_length, options.answer_response_length) == (4096, 2048)
    assert options.policy.group == (5 if options.algorithm == "grpo" else 1)
    assert options.output == f"runs/{name}"
    lines = (ROOT / "experiments/flags" / f"{name}.flags").read_text().splitlines()
    assert any(line.startswith("#") for line in lines)


@pytest.mark.parametrize("name", PAPER)
def test_both_agents_leave_their_warm_up(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = options_of(Path("experiments/flags") / f"{name}.flags")
    for agent in ("manager", "answer"):
        steps = getattr(options, f"{agent}_steps")
        climbing = warmup_steps(options, agent)
        assert climbing == round(0.285 * steps) and 2 <= climbing < steps / 2
        critic = warmup_steps(options, agent, critic=True)
        assert critic == (round(0.015 * steps) if options.algorithm == "ppo" else 0)


def test_a_number_of_warm_up_steps_overrides_the_ratio(monkeypatch):
    monkeypatch.chdir(ROOT)
    options = options_of(Path("experiments/flags/llama31_8b_grpo.flags"))
    options = with_options(options, warmup_steps=3, epochs=2, mini_batches=2)
    assert warmup_steps(options, "manager") == warmup_steps(options, "answer") == 3
    # Optimiser steps are counted: four follow each rollout.
    options = dataclasses.replace(options, warmup_steps=0)
    assert warmup_steps(options, "manager") == round(0.285 * 8 * 4)
    for ratio in (-0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="--warmup_ratio"):
            check_options(dataclasses.replace(options, warmup_ratio=ratio))


def test_the_quickstart_has_the_sizes_that_the_nano_model_was_taught_with(monkeypatch):
    monkeypatch.chdir(ROOT)
    options = options_of(Path("experiments/flags/quickstart.flags"))
    assert options.model == "nano"
    assert {name: getattr(options, name) for name in NANO_SIZES} == NANO_SIZES
    told = {
        "num_sessions": options.synthetic_sessions,
        "facts_per_session": options.synthetic_facts,
        "changes": options.synthetic_changes,
        "endings": options.synthetic_endings,
        "repeats": options.synthetic_repeats,
        "relative_dates": options.synthetic_relative_dates,
    }
    assert told == NANO_DIALOGUES


def test_every_value_of_the_paper_names_its_source():
    text = (ROOT / "experiments/flags/paper/common.flags").read_text()
    for source in ("(paper)", "(authors)", "(Search-R1)", "(verl)", "(ours)"):
        assert text.count(source) >= 2, source
