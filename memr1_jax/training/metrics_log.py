"""The metrics of a run: one JSON line a step in `metrics.jsonl`, and the same for TensorBoard."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.training.files import write_text_atomic

_FILE = "metrics.jsonl"
_LABELS = ("step", "phase", "agent")


class MetricsLog:
    """Appends metrics to `metrics.jsonl` and to TensorBoard files in `tensorboard/`.

    A line that was broken off when an earlier process was killed is removed on opening. Use as a
    context manager, or call `close`.

    Args:
        folder: the run folder; must exist.
        resume_step: the last step that counts: later lines belong to steps that will be done again
            and are cut off (-1 cuts off everything). None keeps all lines.

    Raises:
        UserError: an existing log is damaged in the middle, or cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, resume_step: int | None = None):
        """Open or create the log; see the class."""
        from tensorboardX import SummaryWriter

        self.path = pathlib.Path(folder) / _FILE
        if self.path.exists():
            _repair(self.path, resume_step)
        purge_step = None if resume_step is None else resume_step + 1
        self._board = SummaryWriter(
            str(self.path.parent / "tensorboard"), purge_step=purge_step, flush_secs=10
        )
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, step: int, phase: str, agent: str, values: Mapping[str, Any]) -> None:
        """Append one line and flush it.

        Args:
            step: the optimiser step that the values belong to.
            phase: for example "train" or "eval".
            agent: for example "manager" or "answer".
            values: name to scalar: a number or an array without axes. NaN and infinity, which JSON
                lacks, become null and are read back as NaN.

        Raises:
            ValueError: a value is called step, phase or agent.
        """
        if clash := set(_LABELS) & set(values):
            raise ValueError(f"Metrics may not be called {', '.join(sorted(clash))}.")
        values = {name: float(value) for name, value in values.items()}
        finite = {name: x if math.isfinite(x) else None for name, x in values.items()}
        record = {"step": int(step), "phase": phase, "agent": agent, **finite}
        # One write of a whole line: a killed process leaves at most one broken line, the last.
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{agent}/{phase}/{name}", value, int(step))

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._board.close()

    def __enter__(self) -> "MetricsLog":
        """Return the log itself."""
        return self

    def __exit__(self, *_) -> None:
        """Close."""
        self.close()


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`; a broken last line, left by a killed process, is passed over.

    Args:
        path: the file.

    Returns:
        One dictionary a line: step (int), phase and agent (str), and the metrics (float).

    Raises:
        UserError: there is no such file, or a line before the last is damaged.
    """
    try:
        lines = pathlib.Path(path).read_bytes().splitlines()
    except OSError as error:
        raise UserError(
            f"The metrics {path} cannot be read ({error.strerror}). Give the metrics.jsonl of a run."
        ) from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break
            raise UserError(
                f"Line {number} of {path} is not a line of metrics. The file was damaged: remove"
                " the line, or move the file away."
            ) from error
    return records


def _record(line: bytes) -> dict[str, Any]:
    raw = json.loads(line)
    record = {"step": int(raw["step"]), "phase": str(raw["phase"]), "agent": str(raw["agent"])}
    for name, value in raw.items():
        if name not in _LABELS:
            record[name] = math.nan if value is None else float(value)
    return record


def _repair(path: pathlib.Path, resume_step: int | None) -> None:
    """Rewrite the log without its broken last line and without what comes after `resume_step`."""
    records = read_metrics(path)
    if resume_step is not None:
        records = [record for record in records if record["step"] <= resume_step]
    lines = []
    for record in records:
        plain = {name: None if value != value else value for name, value in record.items()}
        lines.append(json.dumps(plain, ensure_ascii=False) + "\n")
    write_text_atomic(path, "".join(lines))
