"""All commands: ranges, help and names of their flags, and what a mistake is told."""

import importlib
import inspect
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from absl import flags
from commands import COMMANDS, KINDS

from experiments.command_line import define_flags, help_text, parsed
from memr1_jax.errors import UserError
from memr1_jax.flag_files import HOME, expanded
from memr1_jax.flags import read_arguments
from memr1_jax.options import check, entries, flags_text, with_options
from memr1_jax.training.config import ExperimentConfig

ROOT = Path(__file__).parents[2]


def parse(kind: type, *arguments: str):
    values = flags.FlagValues()
    define_flags(kind, values)
    read_arguments(["test", *arguments], values)
    return parsed(kind, values)


def run(module: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        **{"cwd": cwd, "env": environment, "capture_output": True, "text": True},
    )


def refused(module: str, *arguments: str, cwd: Path = ROOT) -> str:
    """Returns the sentence with which a command refuses its arguments."""
    result = run(module, *arguments, cwd=cwd)
    assert (result.returncode, result.stdout) == (2, ""), result.stdout + result.stderr
    message = result.stderr.splitlines()[-1]
    assert message.startswith("Error: ") and "Traceback" not in result.stderr
    return message.removeprefix("Error: ")


def test_every_command_is_listed():
    found = set()
    for folder in ("experiments", "tpu_scripts"):
        for path in (ROOT / folder).glob("*.py"):
            if "\ndef command(" in path.read_text(encoding="utf-8"):
                found.add(f"{folder}.{path.stem}")
    assert found == set(COMMANDS)


def test_more_dialogues_than_a_machine_holds_are_refused():
    for name in ("experiments.evaluate", "experiments.locomo_grpo"):
        with pytest.raises(UserError, match="--synthetic_eval=1000000.* must be from 1 to 100000"):
            parse(KINDS[name], f"--synthetic_eval={10**400}")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_number_out_of_its_range_is_refused_by_flag_value_and_range(command):
    record, values = KINDS[command], flags.FlagValues()
    define_flags(record, values)
    for flag, default, kind, optional, metadata, _ in entries(record()):
        if kind not in (int, float):
            continue
        within = metadata["within"]
        assert within is not None, f"--{flag} of {command} has no range"
        assert (default is None and optional) or default in within
        outside = [value for value in (-1, 0) if value not in within]
        if kind is float:
            outside += [math.nan, math.inf, -math.inf]
            if optional:
                outside.remove(0)  # what none was called
        for value in map(kind, outside):
            values(["test", f"--{flag}={value}"])
            with pytest.raises(UserError) as error:
                parsed(record, values)
            assert f"--{flag}={value} must be " in str(error.value)
            assert str(within) in str(error.value)
            with pytest.raises(UserError, match=f"--{flag}="):  # as well from Python
                check(with_options(record(), **{flag: value}))
            values[flag].value = default
        for text in ("nan", "inf", "1.5", "many", "") if kind is int else ("many", ""):
            with pytest.raises(flags.Error, match=f"--{flag}={text}.*must be a .*number"):
                values(["test", f"--{flag}={text}"])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_its_flags_in_groups(command):
    values = flags.FlagValues()
    define_flags(KINDS[command], values)
    text = help_text(KINDS[command], values)
    found = list(entries(KINDS[command]()))
    for entry in found:
        assert text.count(f"\n  --{entry.flag}:") + text.count(f"\n  --[no]{entry.flag}:") == 1
        assert len(entry.group.split()) > 4, "a group says what it is for"
        assert f"\n{entry.group}:\n" in f"\n{text}"
        assert entry.metadata["help"].endswith((".", "...")), entry.flag
    assert "Former" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_folder_names_flags_that_make_it_again(tmp_path, command):
    record = KINDS[command]
    changes = {
        entry.flag: entry.value + 1 for entry in entries(record()) if type(entry.value) is int
    }
    changed = with_options(record(), **changes)
    path = tmp_path / "flags.txt"
    path.write_text(flags_text(changed))
    assert parse(record, f"--flagfile={path}") == changed


def test_one_name_for_one_thing():
    """Checks that a flag of several commands is of one kind, with one set of meanings."""
    kinds = {}
    for kind in KINDS.values():
        for entry in entries(kind()):
            kinds.setdefault(entry.flag, set()).add(entry.kind)
    assert {flag: found for flag, found in kinds.items() if len(found) > 1} == {}


def test_former_names_work_with_a_warning(tmp_path):
    table = KINDS["experiments.evaluate"]
    path = tmp_path / "old.flags"
    path.write_text("--benchmark=synthetic\n--max_questions=7\n--batch=4\n")
    with pytest.warns(FutureWarning) as told:
        found = parse(
            table, f"--flagfile={path}", "--split=train", "--synthetic_conversations", "2"
        )
    assert (found.data, found.eval_questions, found.eval_batch) == ("synthetic", 7, 4)
    assert (found.eval_split, found.synthetic_eval) == ("train", 2)
    assert [str(one.message).split(";")[0] for one in told] == [
        "--benchmark is now --data",
        "--max_questions is now --eval_questions",
        "--batch is now --eval_batch",
        "--split is now --eval_split",
        "--synthetic_conversations is now --synthetic_eval",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(table)
    with pytest.warns(FutureWarning), pytest.raises(flags.Error, match="nowhere"):
        parse(table, "--benchmark=nowhere")


def test_what_may_be_absent_is_none_and_was_0():
    kind = KINDS["experiments.locomo_grpo"]
    assert parse(kind).policy.dual_clip is None
    assert parse(kind, "--dual_clip=3").policy.dual_clip == 3.0
    assert parse(kind, "--value_clip=none").policy.value_clip is None
    assert parse(kind, "--value_clip=0").policy.value_clip is None


def test_a_flag_file_is_found_by_path_by_name_and_beside_the_one_that_includes_it(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    kind = KINDS["experiments.locomo_grpo"]
    shipped = parse(kind, f"--flagfile={HOME / 'quickstart.flags'}")
    assert shipped.model == "nano"
    assert parse(kind, "--flagfile=quickstart.flags") == shipped
    assert parse(kind, "--flagfile", "experiments/flags/quickstart.flags") == shipped
    assert parse(kind, "--flagfile=llama31_8b_grpo.flags").batch == 128  # which includes others
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/one.flags").write_text("--flagfile=two.flags\n--seed=1\n")
    (tmp_path / "sub/two.flags").write_text("# two\n\n// and\n--seed=2\n--batch=2\n--seed=3\n")
    found = parse(kind, "--batch=9", "--flagfile=sub/one.flags", "--group=4")
    assert (found.seed, found.batch, found.policy.group) == (1, 2, 4)
    (tmp_path / "quickstart.flags").write_text("--seed=5\n")
    assert parse(kind, "--flagfile=quickstart.flags").seed == 5  # one's own comes first


def test_a_flag_file_that_cannot_be_read(tmp_path):
    files = {
        "a.flags": b"--flagfile=b.flags\n",
        "b.flags": b"--flagfile=a.flags\n",
        "bytes.flags": b"--model=\xff\xfe\n",
        "words.flags": b"--seed=1\nbatch 4\n",
        "nothing.flags": b"--flagfile=\n",
        "lost.flags": b"--flagfile=absent.flags\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name, message in (
        ("a.flags", "a.flags includes .*b.flags includes .*a.flags. Break it."),
        ("bytes.flags", "bytes.flags cannot be read: it is not UTF-8 text."),
        ("words.flags", "words.flags, line 2: 'batch 4' is no flag"),
        ("nothing.flags", "in .*nothing.flags names no file"),
        ("lost.flags", "no flag file absent.flags, where --flagfile in .*lost.flags points"),
        ("absent.flags", "no flag file .*absent.flags.*quickstart.flags"),
        (".", "cannot be read: Is a directory"),
        ("x" * 300, "There is no flag file"),
        ("~nosuchuser/a.flags", "names no file"),
    ):
        given = name if name.startswith("~") else tmp_path / name
        with pytest.raises(UserError, match=message):
            expanded([f"--flagfile={given}"])
    with pytest.raises(UserError, match="names no file"):
        expanded(["--flagfile"])


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("experiments.locomo_grpo", ["--temperature=-1"], "--temperature=-1.0 must be from"),
        ("experiments.locomo_ppo", ["--gamm=1"], "Unknown command line flag 'gamm'"),
        ("experiments.retrieval_recall", ["--features=-1"], "--features=-1 must be at least 1."),
        ("experiments.make_nano", ["--output=/etc"], "/etc cannot be written: it is a folder of"),
        ("experiments.evaluate", ["--mesh=foo:1"], "--mesh=foo:1 names the axis 'foo'"),
        ("tpu_scripts.tpu_fit", ["--output=/etc/page.md"], "/etc cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(module, arguments, message):
    assert message in refused(module, *arguments)


def test_a_flag_with_an_endless_name_is_refused_in_a_sentence(tmp_path):
    """Guards against the recursive search for a similar name."""
    values = flags.FlagValues()
    define_flags(KINDS["experiments.report"], values)
    for name in ("9" * 5000, "outputs" * 20):
        with pytest.raises(UserError, match="Unknown command line flag of [0-9]+ characters: --"):
            read_arguments(["test", f"--{name}=1"], values)
        (tmp_path / "long.flags").write_text(f"--{name}=1\n")
        with pytest.raises(UserError, match="Unknown command line flag of [0-9]+ characters: --"):
            ExperimentConfig.from_flags(tmp_path / "long.flags")
    with pytest.raises(flags.UnrecognizedFlagError, match="outpu"):
        read_arguments(["test", "--outpu=1"], values)
    with pytest.raises(UserError, match="'more' is no flag"):
        read_arguments(["test", "more"], values)


def test_a_table_without_any_row_that_ran_is_a_failure(tmp_path):
    arguments = ["--data=synthetic", "--model=nano", f"--output={tmp_path / 'table'}"]
    arguments += ["--answer_prompt=compact_nano", "--manager_prompt=compact_nano"]
    result = run("experiments.evaluate", *arguments, "--rows=memory_r1@nobody")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "No row of the table" in result.stderr and "memory_r1@nobody" in result.stderr


def test_help_ends_with_status_0():
    result = run("experiments.make_judge", "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith(
        inspect.getdoc(importlib.import_module("experiments.make_judge"))
    )
    assert "NanoJudge: Set the lessons" in result.stdout and "--steps:" in result.stdout
    full = run("experiments.make_judge", "--helpfull")
    assert "NanoJudge: Set the lessons" in full.stdout and "--flagfile" in full.stdout
