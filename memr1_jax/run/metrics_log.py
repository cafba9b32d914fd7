"""The metrics of a run: one JSON line a step in `metrics.jsonl`, and the same for a tracker."""

import logging
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from memr1_jax.errors import UserError
from memr1_jax.run.files import DAMAGE, append_whole, cannot_write, write_text_atomic
from memr1_jax.run.json_files import json_line, loads

_FILE = "metrics.jsonl"
_LOG = logging.getLogger(__name__)
_FLUSH_SECONDS = 10.0  # of TensorBoard's files; a flush waits for the disk
_LABELS = ("step", "phase", "agent")


class MetricsLog:
    """Appends metrics to `metrics.jsonl`, and copies them to a tracker.

    A line that was broken off when an earlier process was killed is removed on opening. Use as a
    context manager, or call `close`.

    Args:
        folder: the run folder; must exist.
        tracker: one of `TRACKERS`, or "" for none.

    Raises:
        UserError: an existing log is damaged in the middle, or cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, tracker: str = "tensorboard"):
        """Opens or creates the log; see the class."""
        self._tracker = tracker
        self.path = pathlib.Path(folder) / _FILE
        self._trackers: dict[str, Tracker] = {}
        if self.path.exists():
            _rewrite(self.path, read_metrics(self.path))
        self._open()

    def _open(self) -> None:
        try:
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _track(self, agent: str, purge_step: int | None = None) -> "Tracker | None":
        if self._tracker and agent not in self._trackers:
            create = TRACKERS[self._tracker]
            self._trackers[agent] = create(self.path.parent, agent, purge_step)
        return self._trackers.get(agent)

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
        self._track(agent, purge_step=step + 1)

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
        if tracker := self._track(agent):
            tracker.add(int(step), scalars)

    def close(self) -> None:
        """Flushes and closes the log and its trackers."""
        self._file.close()
        for tracker in self._trackers.values():
            tracker.close()

    def __enter__(self) -> "MetricsLog":
        """Returns the log itself."""
        return self

    def __exit__(self, *_) -> None:
        """Closes the log."""
        self.close()


class Tracker(Protocol):
    """Gets a copy of one agent's metrics; it must not fail, as a run can do without it."""

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes the metrics of a step by name."""

    def close(self) -> None:
        """Writes what is left."""


class _Board:
    """Writes TensorBoard's file of one agent, in `tensorboard/<agent>/`.

    Written here and now: the library's own writer has a thread, without which it waits for ever
    once a full disk has ended it.
    """

    def __init__(self, folder: pathlib.Path, agent: str, purge_step: int | None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder = folder / "tensorboard" / agent
        self._folder, self._writer, self._flushed = folder, None, 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        except OSError as error:
            self._give_up(error)
        if purge_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(self._event(step=purge_step, session_log=start))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        value = self._summary.Value
        values = [value(tag=tag, simple_value=number) for tag, number in scalars.items()]
        self._write(self._event(step=step, summary=self._summary(value=values)))

    def _write(self, event: Any) -> None:
        if self._writer is None:
            return
        event.wall_time = time.time()
        try:
            self._writer.write_event(event)
            if event.wall_time > self._flushed + _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = event.wall_time
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        _LOG.warning(
            "TensorBoard's file in %s cannot be written (%s); this run writes no more to it.",
            self._folder,
            error.strerror or error,
        )
        self.close()

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError as error:
                self._give_up(error)


# From the run folder, the agent, and the first step that is to be forgotten of an earlier process.
TRACKERS: dict[str, Callable[[pathlib.Path, str, int | None], Tracker]] = {"tensorboard": _Board}


class NoLog:
    """In the place of a `MetricsLog` in a process that does not write."""

    def rewind(self, agent: str, step: int) -> None:
        """Does nothing."""

    def write(self, step: int, phase: str, agent: str, values: Mapping[str, Any]) -> None:
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
