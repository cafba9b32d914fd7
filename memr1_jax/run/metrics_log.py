"""The metrics of a run: one JSON line a step in `metrics.jsonl`, and copies for its trackers."""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.run.files import DAMAGE, append_whole, cannot_write, write_text_atomic
from memr1_jax.run.json_files import json_line, loads
from memr1_jax.run.trackers import Trackers

_FILE = "metrics.jsonl"
_LABELS = ("step", "phase", "agent")


class MetricsLog:
    """Appends metrics to `metrics.jsonl`, and copies them to trackers.

    A line that was broken off when an earlier process was killed is removed on opening. Use as a
    context manager, or call `close`.

    Args:
        folder: the run folder; must exist.
        track: names of `run/trackers.py`.

    Raises:
        UserError: an existing log is damaged in the middle, or cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, track: Sequence[str] = ("tensorboard",)):
        """Opens or creates the log; see the class."""
        self.path = pathlib.Path(folder) / _FILE
        if self.path.exists():
            _rewrite(self.path, read_metrics(self.path))
        self._open()
        self._trackers = Trackers(self.path.parent, track)

    def _open(self) -> None:
        try:
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def rewind(self, agent: str, step: int) -> None:
        """Cuts off the agent's lines beyond `step`: those steps will be done again.

        To be called before the agent's first `write`, so that a tracker forgets them too.
        """
        records = read_metrics(self.path)
        kept = [r for r in records if r["agent"] != agent or r["step"] <= step]
        if len(kept) < len(records):
            self._file.close()
            _rewrite(self.path, kept)
            self._open()
        self._trackers.tell("rewind", agent, step)

    def write(self, step: int, phase: str, agent: str, values: Mapping[str, Any]) -> None:
        """Appends one line and flushes it.

        Args:
            step: the optimiser step that the values belong to.
            phase: for example "train" or "eval".
            agent: for example "manager" or "answer".
            values: name to scalar: a number or an array without axes. NaN and infinity, which JSON
                lacks, become null and are read back as NaN.

        Raises:
            ValueError: a value is called step, phase or agent.
            UserError: the disk refuses the line, and nothing is left of it.
        """
        if clash := set(_LABELS) & set(values):
            raise ValueError(f"Metrics may not be called {', '.join(sorted(clash))}.")
        values = {name: float(value) for name, value in values.items()}
        finite = {name: x if math.isfinite(x) else None for name, x in values.items()}
        record = {"step": int(step), "phase": phase, "agent": agent, **finite}
        # One write of a whole line: a killed process leaves at most one broken line, the last.
        append_whole(self._file, json_line(record).encode())
        scalars = {f"{phase}/{name}": value for name, value in values.items()}
        self._trackers.tell("add", agent, int(step), scalars)

    def configure(self, options: Mapping[str, Any]) -> None:
        """Tells the trackers the options of the run, by flag."""
        self._trackers.tell("configure", options)

    def samples(self, step: int, agent: str, described: Sequence[Mapping[str, Any]]) -> None:
        """Tells the trackers prompts, each with its sampled `responses`, as a table."""
        rows = [
            {"prompt": prompt["prompt"], **response}
            for prompt in described
            for response in prompt.get("responses", ())
        ]
        if rows:
            self._trackers.tell("samples", agent, step, rows)

    def attach(self, path: pathlib.Path) -> None:
        """Gives the trackers a file of the run."""
        self._trackers.tell("attach", path)

    def close(self) -> None:
        """Flushes and closes the log and its trackers."""
        self._file.close()
        self._trackers.tell("close")

    def __enter__(self) -> "MetricsLog":
        """Returns the log itself."""
        return self

    def __exit__(self, *_) -> None:
        """Closes the log."""
        self.close()


class NoLog:
    """In the place of a `MetricsLog` in a process that does not write."""

    def rewind(self, agent: str, step: int) -> None:
        """Does nothing."""

    def write(self, step: int, phase: str, agent: str, values: Mapping[str, Any]) -> None:
        """Does nothing."""

    def configure(self, options: Mapping[str, Any]) -> None:
        """Does nothing."""

    def samples(self, step: int, agent: str, described: Sequence[Mapping[str, Any]]) -> None:
        """Does nothing."""

    def attach(self, path: pathlib.Path) -> None:
        """Does nothing."""

    def __enter__(self) -> "NoLog":
        """Returns itself."""
        return self

    def __exit__(self, *_) -> None:
        """Does nothing."""


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`; a broken last line, left by a killed process, is passed over.

    Args:
        path: the file.

    Returns:
        One dictionary a line: step (int), phase and agent (str), and the metrics (float).

    Raises:
        UserError: there is no such file, or a whole line is damaged.
    """
    try:
        *lines, rest = pathlib.Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(
            f"The metrics {path} cannot be read ({error.strerror or error})."
            " Give the metrics.jsonl of a run."
        ) from error
    records = []
    for number, line in enumerate([*lines, rest], start=1):
        try:
            records.append(_record(line))
        except DAMAGE as error:
            if number > len(lines):
                break
            raise UserError(
                f"Line {number} of {path} is not a line of metrics. The file was damaged: remove"
                " the line, or move the file away."
            ) from error
    return records


def records_of(
    records: Sequence[Mapping[str, Any]], agent: str, phase: str
) -> list[Mapping[str, Any]]:
    """Returns one agent's records in one phase, such as "train" or "validation", in order."""
    return [r for r in records if r["agent"] == agent and r["phase"] == phase]


def first_and_last(steps: Sequence[Mapping[str, Any]]) -> tuple[str, int, float, float]:
    """Averages an agent's reward, or loss, over the first and the last fifth of its steps.

    Args:
        steps: one agent's records, at least one, in order.

    Returns:
        The metric, "reward" or, where nothing was rewarded, "loss"; how many steps a mean is of,
        and both means. A step that was skipped has no loss and does not count.
    """
    what = "reward" if "reward" in steps[0] else "loss"
    values, few = [s[what] for s in steps if what in s] or [math.nan], max(1, len(steps) // 5)
    return what, few, sum(values[:few]) / few, sum(values[-few:]) / few


def _record(line: bytes) -> dict[str, Any]:
    raw = loads(line)
    record = {"step": int(raw["step"]), "phase": str(raw["phase"]), "agent": str(raw["agent"])}
    for name, value in raw.items():
        if name not in _LABELS:
            record[name] = math.nan if value is None else float(value)
    return record


def _rewrite(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
    """Writes the records again, whole or not at all."""
    lines = []
    for record in records:
        plain = {name: None if value != value else value for name, value in record.items()}
        lines.append(json_line(plain))
    write_text_atomic(path, "".join(lines))
