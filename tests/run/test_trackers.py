"""Trackers of a run: stand-ins for their packages, and the real ones offline."""

import importlib.machinery
import importlib.util
import json
import sys
import types
from types import SimpleNamespace

import pytest

from memr1_jax.errors import UserError
from memr1_jax.run import trackers
from memr1_jax.run.metrics_log import MetricsLog, read_metrics
from memr1_jax.run.trackers import TRACKERS, Tracker, parse_trackers

PROMPT = {
    "prompt": "Where?",
    "responses": [
        {"text": "Oslo", "reward": 1.0, "stopped": True},
        {"text": "Bergen", "reward": 0.0, "stopped": False},
    ],
}


def tell_everything(folder, *names):
    """Logs a short run; returns its page."""
    page = folder / "report.html"
    page.write_text("<p>page</p>")
    with MetricsLog(folder, names) as log:
        log.configure({"group": 5, "model": "nano"})
        log.rewind("manager", 0)
        log.write(1, "train", "manager", {"reward": 0.5})
        log.samples(1, "manager", [PROMPT])
        log.write(1, "train", "answer", {"reward": 0.75})
        log.attach(page)
    return page


def stand_in(monkeypatch, name, **members):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class Told(list):
    """Records calls of any method of a stand-in."""

    def __getattr__(self, name):
        return lambda *given, **named: self.append((name, *given, *named.values()))


@pytest.fixture
def wandb(monkeypatch):
    told = Told()
    told.config = SimpleNamespace(update=lambda options, **_: told.append(("options", options)))

    def init(**settings):
        told.append(("init", settings["id"], settings["resume"], settings["name"]))
        return told

    class Artifact(SimpleNamespace):
        def __init__(self, name, type):
            super().__init__(name=name, type=type, files=[])

        def add_file(self, path):
            self.files.append(path)

    module = stand_in(monkeypatch, "wandb", init=init, Artifact=Artifact, Table=dict)
    module.told = told
    return module


def test_weights_and_biases_is_told_everything(tmp_path, wandb):
    page = tell_everything(tmp_path, "wandb")
    told = wandb.told
    name, run_id, resume, title = told[0]
    assert (name, resume, title) == ("init", "allow", tmp_path.name)
    assert ("options", {"group": 5, "model": "nano"}) in told
    assert ("define_metric", "manager/*", "manager/step") in told
    assert ("log", {"manager/train/reward": 0.5, "manager/step": 1}) in told
    assert ("log", {"answer/train/reward": 0.75, "answer/step": 1}) in told
    (table,) = [call[1] for call in told if call[0] == "log" and "manager/samples" in call[1]]
    assert table["manager/samples"] == {
        "columns": ["prompt", "text", "reward", "stopped"],
        "data": [["Where?", "Oslo", 1.0, True], ["Where?", "Bergen", 0.0, False]],
    }
    (artifact,) = [call[1] for call in told if call[0] == "log_artifact"]
    assert artifact.files == [str(page)] and artifact.type == "report"
    assert told[-1] == ("finish",)
    tell_everything(tmp_path, "wandb")  # as a resumed run does
    assert [call[1] for call in told if call[0] == "init"] == [run_id, run_id]


def test_mlflow_is_told_everything(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    told, places = Told(), []
    info = SimpleNamespace(info=SimpleNamespace(run_id="run-1"))

    class Client:
        def __init__(self, tracking_uri):
            places.append(tracking_uri)

        def get_experiment_by_name(self, name):
            return SimpleNamespace(experiment_id=name)

        def create_run(self, experiment, run_name):
            told.append(("create_run", experiment, run_name))
            return info

        def __getattr__(self, name):
            return getattr(told, name)

    entities = SimpleNamespace(Metric=lambda key, value, _, step: (key, value, step))
    stand_in(monkeypatch, "mlflow", MlflowClient=Client, entities=entities)
    page = tell_everything(tmp_path, "mlflow")
    tell_everything(tmp_path, "mlflow")
    assert places == [f"sqlite:///{tmp_path}/mlflow.db"] * 2
    assert [call for call in told if call[0] == "create_run"] == [
        ("create_run", "memr1_jax", tmp_path.name)
    ]
    assert ("log_dict", "run-1", {"group": 5, "model": "nano"}, "options.json") in told
    assert ("log_batch", "run-1", [("manager/train/reward", 0.5, 1)]) in told
    table = {
        "step": [1, 1],
        "prompt": ["Where?", "Where?"],
        "text": ["Oslo", "Bergen"],
        "reward": [1.0, 0.0],
        "stopped": [True, False],
    }
    assert ("log_dict", "run-1", table, "samples/manager/step_000001.json") in told
    assert ("log_artifact", "run-1", str(page)) in told
    assert told[-1] == ("set_terminated", "run-1")


def test_a_tracker_that_fails_is_told_no_more_and_the_others_are(tmp_path, monkeypatch, caplog):
    seen = []

    class Broken(Tracker):
        def add(self, *given):
            raise ConnectionError("no route to the server")

    class Recorder(Tracker):
        def __init__(self, folder):
            seen.append(folder)

        def add(self, *given):
            seen.append(given)

    monkeypatch.setitem(TRACKERS, "broken", lambda folder: Broken())
    monkeypatch.setitem(TRACKERS, "recorder", Recorder)
    tell_everything(tmp_path, "broken", "recorder")
    assert seen == [
        tmp_path,
        ("manager", 1, {"train/reward": 0.5}),
        ("answer", 1, {"train/reward": 0.75}),
    ]
    assert caplog.text.count("The tracker broken failed (no route to the server)") == 1
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


def test_a_tracker_that_cannot_begin_does_not_stop_a_run(tmp_path, wandb, caplog):
    def refuse(**settings):
        raise ValueError("api_key not configured")

    wandb.init = refuse
    tell_everything(tmp_path, "wandb")
    assert "The tracker wandb failed (api_key not configured)" in caplog.text


def test_names_of_trackers_are_checked(monkeypatch):
    assert parse_trackers("") == ()
    assert parse_trackers(" tensorboard, tensorboard") == ("tensorboard",)
    with pytest.raises(UserError, match="names comet"):
        parse_trackers("tensorboard,comet")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e \"\.\[wandb\]\""):
        parse_trackers("wandb")


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_weights_and_biases_writes_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tell_everything(tmp_path, "wandb")
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_writes_into_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tell_everything(tmp_path, "mlflow")
    (options,) = tmp_path.glob("mlartifacts/*/artifacts/options.json")
    assert json.loads(options.read_text())["group"] == 5
    assert list(tmp_path.glob("mlartifacts/*/artifacts/report.html"))
    (run_id,) = json.loads((tmp_path / "trackers.json").read_text()).values()
    client = importlib.import_module("mlflow").MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert client.get_run(run_id).data.metrics["manager/train/reward"] == 0.5
