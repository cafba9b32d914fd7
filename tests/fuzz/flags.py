"""Command lines: every option of every command with odd values, and flag files."""

import os
import random
from pathlib import Path

from absl import flags
from commands import KINDS

from experiments.command_line import define_flags, parsed
from memr1_jax.bench.tables.job import make_table
from memr1_jax.errors import UserError
from memr1_jax.flags import read_arguments
from memr1_jax.inference.evaluation import evaluate
from memr1_jax.options import entries, flags_text
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.experiment import Experiment

from .driver import Target, single
from .mutate import damaged

# What the command does with the options, up to where it would need its model.
_WORK = {
    "experiments.evaluate": make_table,
    "experiments.locomo_eval": evaluate,
    "experiments.locomo_grpo": Experiment,
    "experiments.locomo_ppo": Experiment,
    "experiments.locomo_sft": Experiment,
}
_ODD = [
    *("", " ", "none", "None", "null", "nan", "inf", "-inf", "1e999", "-1e-999", "1e-320", "-0.0"),
    *("0", "-1", "1", "2", "3", "1.5", "1e3", "1_0", "0x10", "٣", "²", "9" * 400, "-" + "9" * 30),
    *("true", "false", "yes", "True ", "x", "=", "--", "--seed=1", "a,b", ",", "foo:1", "data:0"),
    *("data:-1", "fsdp:2", "data:1,data:1", ":", "[]", "{}", "\n", "\t1", "\x00", "\ud83d", "é"),
    *("/etc", "/proc/self/mem", "/dev/null", "/", ".", "..", "~", "~nosuchuser/x", "~nosuchuser"),
    *("x" * 300, "a/" * 3000 + "b", "file://x", "con", "nano/..", "%s", "{x}", "$HOME", "*", "\\"),
]


def _make(rng: random.Random):
    command = rng.choice(list(KINDS))
    record = KINDS[command]
    found = list(entries(record()))
    arguments = []
    for entry in rng.sample(found, min(rng.choice([1, 1, 1, 2, 3]), len(found))):
        value = rng.choice([*_ODD, *(entry.metadata["choices"] or ())])
        arguments.append(f"--{entry.flag}={value}")
    return command, arguments


def _parse(command: str, arguments: list[str]):
    record = KINDS[command]
    values = flags.FlagValues()
    define_flags(record, values)
    try:
        read_arguments(["fuzz", *arguments], values)
    except flags.Error as error:
        raise UserError(str(error)[:1000]) from error  # what was typed may be long
    return parsed(record, values)


def flag_targets(folder: Path) -> list[Target]:
    """Lists the targets of this module; commands work in `folder`."""
    output = folder / "runs"

    def try_one(case):
        command, arguments = case
        given = {argument.partition("=")[0] for argument in arguments}
        work = _WORK.get(command)
        # A model that does not exist ends what all checks let pass.
        ends = {"--model": "./none", "--output": output, "--data": "synthetic"}
        ends |= {"--synthetic_train": 1, "--synthetic_eval": 1, "--synthetic_sessions": 2}
        record = KINDS[command]
        known = {f"--{entry.flag}" for entry in entries(record())}
        more = [f"{k}={v}" for k, v in ends.items() if work and k in known and k not in given]
        before = os.getcwd()
        os.chdir(folder)
        try:
            options = _parse(command, [*more, *arguments])
            if work:
                work(options)
        finally:
            os.chdir(before)

    flag_file = folder / "fuzz.flags"
    text = flags_text(ExperimentConfig())

    def make_file(rng):
        return damaged(text, rng)

    def try_file(text):
        flag_file.write_text(text, encoding="utf-8", errors="surrogatepass")
        _parse("experiments.locomo_grpo", [f"--flagfile={flag_file}"])

    return [
        Target("flags", _make, single(try_one)),
        Target("flag_files", make_file, single(try_file)),
    ]
