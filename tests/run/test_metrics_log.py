import errno
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.run.metrics_log import MetricsLog, read_metrics


def _write(folder, steps, rewind=None, agent="manager"):
    with MetricsLog(folder) as log:
        if rewind is not None:
            log.rewind(agent, rewind)
        for step in steps:
            log.write(step, "train", agent, {"reward": step / 10, "loss": -1.5})


def _steps(folder):
    return [record["step"] for record in read_metrics(folder / "metrics.jsonl")]


def test_round_trip_of_numbers_and_arrays(tmp_path):
    with MetricsLog(tmp_path) as log:
        values = {"reward": jnp.float32(0.5), "loss": np.float64(-0.1), "tokens": 7}
        log.write(jnp.int32(1), "train", "answer", values)
        log.write(2, "eval", "answer", {"reward": math.inf, "loss": jnp.nan})
        # Read before closing: each line is flushed.
        first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert first == {
        "step": 1,
        "phase": "train",
        "agent": "answer",
        "reward": 0.5,
        "loss": -0.1,
        "tokens": 7.0,
    }
    assert isinstance(first["tokens"], float) and isinstance(first["step"], int)
    assert second["phase"] == "eval"
    assert math.isnan(second["reward"]) and math.isnan(second["loss"])


def test_lines_are_plain_json(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", "answer", {"loss": jnp.nan})

    def refuse(constant):
        raise AssertionError(constant)

    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse)["loss"] is None
    assert line.endswith("}\n")


def test_names_of_labels_are_refused(tmp_path):
    with MetricsLog(tmp_path) as log, pytest.raises(ValueError, match="step"):
        log.write(1, "train", "answer", {"step": 1.0})


def test_opening_again_appends(tmp_path):
    _write(tmp_path, [1, 2])
    _write(tmp_path, [3])
    assert _steps(tmp_path) == [1, 2, 3]


def test_rewinding_cuts_off_later_steps_of_one_agent(tmp_path):
    _write(tmp_path, [1, 2, 3, 4])
    _write(tmp_path, [1, 2], agent="answer")
    _write(tmp_path, [3], rewind=2)
    assert _steps(tmp_path) == [1, 2, 1, 2, 3]
    _write(tmp_path, [], rewind=0)
    assert _steps(tmp_path) == [1, 2]


def test_rewinding_keeps_values(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", "manager", {"reward": 0.1, "loss": jnp.nan})
    before = (tmp_path / "metrics.jsonl").read_text()
    _write(tmp_path, [], rewind=1)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_line_broken_anywhere_by_a_kill_is_dropped(tmp_path):
    _write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        complete = cut == len(whole) - 1  # only the line break is missing
        assert _steps(tmp_path) == ([1, 2] if complete else [1])
    path.write_bytes(whole[: start + 9])
    _write(tmp_path, [2, 3])
    assert _steps(tmp_path) == [1, 2, 3]
    assert path.read_bytes().startswith(whole)


def test_damage_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(tmp_path, [1, 2, 3])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "[1]\n" + lines[2])
    with pytest.raises(UserError, match=f"Line 2 of {path}"):
        read_metrics(path)
    with pytest.raises(UserError, match="Line 2"):
        MetricsLog(tmp_path)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"step": 1e999, "phase": "a", "agent": "b"}'])
def test_a_whole_line_is_damaged_even_at_the_end(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    _write(tmp_path, [1])
    whole = path.read_text()
    path.write_text(whole + line + "\n")
    with pytest.raises(UserError, match=f"Line 2 of {path}.*remove the line"):
        read_metrics(path)
    path.write_text(whole + line)  # as a kill leaves it
    assert _steps(tmp_path) == [1]


def test_a_full_disk_is_told_and_leaves_whole_lines(tmp_path):
    """Limits a file's size in place of a full disk, which ends writes alike."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    _write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    try:
        with MetricsLog(tmp_path) as log:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, hard))
            with pytest.raises(UserError, match=f"{path} could not be written .*Make room"):
                for step in range(3, 30):
                    log.write(step, "train", "manager", {"reward": 0.1, "loss": 0.2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _steps(tmp_path) == [1, 2] and path.read_bytes().endswith(b"}\n")
    _write(tmp_path, [3])
    assert _steps(tmp_path) == [1, 2, 3]


def test_tensorboard_without_room_does_not_stop_a_run(tmp_path, monkeypatch, caplog):
    from tensorboardX.event_file_writer import EventsWriter

    def fail(self, event):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EventsWriter, "write_event", fail)
    with MetricsLog(tmp_path) as log:
        monkeypatch.setattr(EventsWriter, "__init__", lambda self, prefix: None)
        monkeypatch.setattr(EventsWriter, "close", lambda self: None)
        for step in range(1, 40):
            log.write(step, "train", "manager", {"reward": 0.5})
    assert _steps(tmp_path) == list(range(1, 40))
    assert caplog.text.count("cannot be written (No space left on device)") == 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.jsonl cannot be read"):
        read_metrics(tmp_path / "none.jsonl")


def test_tensorboard_gets_the_same_values(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    _write(tmp_path, [1, 2])
    (events,) = (tmp_path / "tensorboard" / "manager").iterdir()
    data, found, offset = events.read_bytes(), [], 0
    while offset < len(data):  # records: length (8), checksum (4), event, checksum (4)
        length = int.from_bytes(data[offset : offset + 8], "little")
        event = Event.FromString(data[offset + 12 : offset + 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        offset += length + 16
    assert (2, "train/reward", pytest.approx(0.2)) in found
    assert len(found) == 4


def test_without_trackers_only_lines_are_written(tmp_path):
    with MetricsLog(tmp_path, ()) as log:
        log.write(6, "train", "manager", {"loss": 0.25})
        log.samples(6, "manager", [{"prompt": "", "responses": []}])
    assert [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [0.25]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl"}
