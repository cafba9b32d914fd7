"""Files that a run writes and reads again: predictions, verdicts, metrics, settings, banks."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from memr1_jax.agents.agent_folder import read_settings, write_settings
from memr1_jax.agents.bank_file import read_banks, write_banks
from memr1_jax.agents.ingest import Ingestion
from memr1_jax.bench.judge.judge_prompts import judge_prompt
from memr1_jax.bench.judge.verdicts import (
    Verdict,
    append_verdicts,
    read_reply,
    read_verdicts,
    verdict_key,
)
from memr1_jax.bench.scoring import Answered
from memr1_jax.bench.systems.loose_json import read_json, read_objects, texts
from memr1_jax.bench.systems.protocol import Memory
from memr1_jax.bench.tables.rows import Row, read_row, write_row
from memr1_jax.bench.usage import EvidenceFound
from memr1_jax.data.types import Question
from memr1_jax.evals.answering import Prediction, summarise
from memr1_jax.evals.evaluator import Evaluation
from memr1_jax.evals.metrics import score
from memr1_jax.evals.report.replay import (
    Change,
    DialogueRecord,
    QuestionRecord,
    TurnRecord,
    write_replay,
)
from memr1_jax.evals.report.report import write_evaluation
from memr1_jax.evals.report.report_page import report_page
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.options import option
from memr1_jax.run.checksums import FILE, damaged_file, write_checksums
from memr1_jax.run.metrics_log import MetricsLog
from memr1_jax.run.run_folder import Input, RunFolder
from memr1_jax.training.config import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class _Options:
    seed: int = option(0, "A seed.")


def make_run(folder: Path) -> None:
    """Writes a small run: metrics, an evaluation with its replay, flags and the record."""
    with MetricsLog(folder) as log:
        for step in (1, 2):
            log.write(step, "train", "manager", {"reward": step / 2, "loss": -0.5, "add": 1.0})
    question = Question("Who?", "Ana", 4, ("D1:1",), 0)
    scores = score("Ana", question)
    answer = ("**Answer:** Ana", "Ana", "bold_label", 3, True)
    prediction = Prediction("c", 0, "Who?", "Ana", 4, *answer, scores)
    found = Evaluation(summarise([prediction]), [prediction], {"turns": 1.0})
    write_evaluation(folder, "before", found, "test")
    turn = ("Ana", "D1:1", "Ben", "1 May", "Hi.", ("Ana has a dog.",))
    changes = (Change("added", 0, None, "Ana’s dog"),)
    record = TurnRecord(*turn, changes, 1, output="{}", questions=(0,))
    asked = QuestionRecord(0, "Who?", "Ana", 4, ("D1:1",), "Ana", "Ana", True)
    write_replay(folder, "before", [DialogueRecord("c", ("Ana", "Ben"), 8, (record,), (asked,))])
    (folder / "flags.txt").write_text("--seed=0\n--model=nano\n")
    with RunFolder(folder, "training", _Options(), resume=True) as opened:
        opened.record({"--model": Input("nano", "12" * 32)})


def _resumed(folder: Path) -> None:
    with RunFolder(folder, "training", _Options(), resume=True) as opened:
        opened.record({"--model": Input("nano", "12" * 32)})


def _make_row(folder: Path) -> None:
    evidence = EvidenceFound((), ("D1:1",), ())
    memories = (dataclasses.asdict(Memory("x", "May", "Ana", ("D1:1",))),)
    texts = ("Who?", "Ana", "Ana", "Ana", "whole")
    item = Answered("c", 0, "q", "k", 4, *texts, False, {"f1": 1.0}, evidence, memories)
    write_row(folder, "row", Row([item], {"questions": 1}, {"answer": {"calls": 1}}))


def _make_verdicts(folder: Path) -> None:
    prompt = judge_prompt("locomo")
    for index in range(2):
        key = verdict_key("m", prompt, f"q{index}", "gold", "answer")
        fields = ("c1", index, "m", prompt.name, prompt.digest, key, "right", ("raw é",), 0.5)
        append_verdicts(folder / "verdicts.jsonl", [Verdict(*fields)])


def _make_banks(folder: Path) -> None:
    fields = MemoryBank.__dataclass_fields__
    banks = [MemoryBank(**{name: np.ones((2, 3), np.int32) for name in fields}) for _ in range(2)]
    write_banks(folder / "training_banks.safetensors", Ingestion(tuple(banks), {"turns": 4.0}), "m")


def _make_checksums(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state/data").write_bytes(b"weights")
    write_checksums(folder)


def _verify(folder: Path) -> None:
    if damaged_file(folder) is None:
        assert (folder / "state/data").read_bytes() == b"weights", "damage that is not noticed"
        assert "state/data" in json.loads((folder / FILE).read_text())


def _make_settings(folder: Path) -> None:
    write_settings(folder, ExperimentConfig(), "noted", None)


# What writes the files, what reads them, and which of them are damaged.
RECORDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object], tuple[str, ...]]] = {
    "report": (
        make_run,
        report_page,
        (
            *("metrics.jsonl", "evaluation_before.json", "predictions_before.jsonl"),
            *("replay_before.json", "flags.txt"),
        ),
    ),
    "resume": (make_run, _resumed, ("run.json", "flags.txt")),
    "row": (
        _make_row,
        lambda folder: read_row(folder, "row"),
        ("row.json", "row.timing.json", "row.predictions.jsonl"),
    ),
    "verdicts": (
        _make_verdicts,
        lambda folder: read_verdicts(folder / "verdicts.jsonl"),
        ("verdicts.jsonl",),
    ),
    "banks": (
        _make_banks,
        lambda folder: read_banks(folder / "training_banks.safetensors", "m"),
        ("training_banks.safetensors",),
    ),
    "checksums": (_make_checksums, _verify, (FILE, "state/data")),
    "agent_settings": (_make_settings, read_settings, ("memr1_jax.json",)),
}


@functools.cache
def _judge_prompts():
    return judge_prompt("locomo"), judge_prompt("longmemeval_default")


def read_reply_of_a_model(text: str) -> None:
    """Reads a reply as the judge's, as JSON of a manager, and as a list of facts."""
    for prompt in _judge_prompts():
        assert read_reply(text, prompt) in ("right", "wrong", "unreadable")
    found, _ = read_json(text, "memory")
    for value in (found, *read_objects(text)):
        assert value is None or isinstance(value, dict)
    assert all(len(line.splitlines()) <= 1 for line in texts((found or {}).get("memory")))
