"""Copies of a run's metrics, samples, options and page for the services that people look at.

A run never depends on them: a failure is reported once, and the run continues without that tracker.
Each writes offline if its own settings ask for it (`WANDB_MODE=offline`; MLflow writes into the run
folder unless `MLFLOW_TRACKING_URI` names a server).
"""

import importlib.util
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.run.files import write_json_atomic
from memr1_jax.run.json_files import read_json_object

PROJECT = "memr1_jax"
_LOG = logging.getLogger(__name__)
_IDS = "trackers.json"  # so that a resumed run continues the same record
_FLUSH_SECONDS = 10.0  # of TensorBoard's files; a flush waits for the disk


class Tracker:
    """Receives copies of a run; each tracker keeps what it can, and this one nothing."""

    def configure(self, options: Mapping[str, Any]) -> None:
        """Takes the run's options by flag."""

    def rewind(self, agent: str, step: int) -> None:
        """Forgets what an agent logged beyond `step`, before its first `add`."""

    def add(self, agent: str, step: int, scalars: Mapping[str, float]) -> None:
        """Takes the metrics of an agent's step by name."""

    def samples(self, agent: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes sampled responses as a table: rows with the same columns, at least one."""

    def attach(self, path: Path) -> None:
        """Takes a file, such as the run's page."""

    def close(self) -> None:
        """Writes what is left."""


class _TensorBoard(Tracker):
    """Writes a folder `tensorboard/<agent>/` of scalars for each agent."""

    def __init__(self, folder: Path):
        self._folder, self._boards = folder, {}

    def rewind(self, agent, step):
        self._board(agent, step + 1)

    def add(self, agent, step, scalars):
        self._board(agent).add(step, scalars)

    def _board(self, agent, purge_step=None):
        if agent not in self._boards:
            self._boards[agent] = _Board(self._folder, agent, purge_step)
        return self._boards[agent]

    def close(self):
        for board in self._boards.values():
            board.close()


class _Board:
    """Writes TensorBoard's file of one agent.

    Written at once, without a thread: a full disk ends the thread of the library's own writer,
    which then waits for ever.
    """

    def __init__(self, folder: Path, agent: str, purge_step: int | None):
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


class _WandB(Tracker):
    """Logs to Weights & Biases, each agent over its own steps."""

    def __init__(self, folder: Path):
        import wandb

        self._wandb, self._agents = wandb, set()
        self._id = _run_id(folder, "wandb", lambda: secrets.token_hex(4))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=self._id,
            resume="allow",
            dir=str(folder),
        )

    def configure(self, options):
        self._run.config.update(dict(options), allow_val_change=True)

    def add(self, agent, step, scalars):
        self._log(agent, step, scalars)

    def samples(self, agent, step, rows):
        columns = list(rows[0])
        data = [[row[column] for column in columns] for row in rows]
        self._log(agent, step, {"samples": self._wandb.Table(columns=columns, data=data)})

    def _log(self, agent, step, values):
        if agent not in self._agents:  # a step of its own, as the agents train one after another
            self._run.define_metric(f"{agent}/step")
            self._run.define_metric(f"{agent}/*", step_metric=f"{agent}/step")
            self._agents.add(agent)
        named = {f"{agent}/{name}": value for name, value in values.items()}
        self._run.log(named | {f"{agent}/step": step})

    def attach(self, path):
        artifact = self._wandb.Artifact(f"{self._id}-{path.stem}", type=path.stem)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self):
        self._run.finish()


class _MLflow(Tracker):
    """Logs to an MLflow server, or into `mlflow.db` and `mlartifacts` of the run folder."""

    def __init__(self, folder: Path):
        import mlflow

        folder = folder.resolve()
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._artefacts = None if server else (folder / "mlartifacts").as_uri()
        place = server or f"sqlite:///{folder / 'mlflow.db'}"
        self._mlflow, self._client = mlflow, mlflow.MlflowClient(tracking_uri=place)
        self._id = _run_id(folder, "mlflow", lambda: self._create(folder.name))
        self._client.update_run(self._id, status="RUNNING")

    def _create(self, name):
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(project)
        where = (
            found.experiment_id
            if found
            else self._client.create_experiment(project, artifact_location=self._artefacts)
        )
        return self._client.create_run(where, run_name=name).info.run_id

    def configure(self, options):
        self._client.log_dict(self._id, dict(options), "options.json")

    def add(self, agent, step, scalars):
        now = int(1000 * time.time())
        metrics = [
            self._mlflow.entities.Metric(f"{agent}/{name}", value, now, step)
            for name, value in scalars.items()
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def samples(self, agent, step, rows):
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        table = {"step": [step] * len(rows)} | columns
        self._client.log_dict(self._id, table, f"samples/{agent}/step_{step:06d}.json")

    def attach(self, path):
        self._client.log_artifact(self._id, str(path))

    def close(self):
        self._client.set_terminated(self._id)


# From the run folder. TensorBoard's package is always installed, those of the others are extras.
TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "mlflow": _MLflow,
}


def parse_trackers(text: str) -> tuple[str, ...]:
    """Reads the names of `--track`, separated by commas; none for an empty text.

    Raises:
      UserError: a name is unknown, or its package is not installed.
    """
    names = tuple(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))
    if unknown := [name for name in names if name not in TRACKERS]:
        raise UserError(
            f"--track={text} names {', '.join(unknown)}. The trackers are {', '.join(TRACKERS)};"
            " --track= copies nothing."
        )
    for name in names:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise UserError(
                f"--track={text} needs {name}, which is not installed. Run: pip install"
                f' -e ".[{name}]"'
            )
    return names


class Trackers:
    """Passes the same to several trackers, and drops one that fails."""

    def __init__(self, folder: Path, names: Sequence[str]):
        """Begins the record of each."""
        self._trackers: dict[str, Tracker] = {}
        for name in names:
            self._guard(name, lambda name=name: self._begin(name, folder))

    def _begin(self, name, folder):
        self._trackers[name] = TRACKERS[name](folder)

    def tell(self, what: str, *arguments: Any) -> None:
        """Calls a method of all trackers by its name."""
        for name, tracker in list(self._trackers.items()):
            self._guard(name, lambda tracker=tracker: getattr(tracker, what)(*arguments))

    def _guard(self, name, call):
        try:
            call()
        except Exception as error:  # of a service, a network, a disk: the run goes without it
            self._trackers.pop(name, None)
            _LOG.warning(
                "The tracker %s failed (%s); this run tells it no more.",
                name,
                str(error).split("\n")[0][:200] or type(error).__name__,
            )


def _run_id(folder: Path, tracker: str, make: Callable[[], str]) -> str:
    """Returns the tracker's name for the run in `folder`, made once and kept there."""
    path = folder / _IDS
    known = read_json_object(path, "Delete it to begin a new record.") if path.exists() else {}
    if tracker not in known:
        known[tracker] = make()
        write_json_atomic(path, known)
    return known[tracker]
