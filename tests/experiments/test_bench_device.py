"""The measurement of a device, on a CPU with the smallest of everything."""

import json

import pytest

from experiments import bench_device
from experiments.bench_device import BenchDeviceConfig, main
from memr1_jax.errors import UserError
from memr1_jax.options import with_options
from memr1_jax.planner.chips import peaks_of

TINY = {"models": "tiny", "prompts": 2, "group": 2, "prompt": 12, "response": 4, "repeats": 1}


def options(path, **changes):
    return with_options(BenchDeviceConfig(), output=str(path), **(TINY | changes))


@pytest.mark.slow
def test_all_parts_are_measured_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_device, "peaks", lambda *_: {"flops": 1e9, "bandwidth": 1e9})
    path = tmp_path / "device.json"
    main(options(path))
    found = json.loads(path.read_text())
    assert [row["attention"] for row in found["parity"]] == ["xla"]
    assert found["parity"][0]["gradient_error"] < 1e-6
    assert abs(found["parity"][0]["loss"]) > 1e-4  # there is a loss to compare
    rollout, update = found["tiny rollout xla"], found["tiny update xla"]
    assert rollout["tokens_a_second"] == pytest.approx(16 / rollout["seconds"])
    assert update["tokens_a_second"] == pytest.approx((64 + 2 * 12 + 16) / update["seconds"])
    assert 0 < update["share_of_flops"]
    assert "what a large product and a sum reached" in capsys.readouterr().out


def test_after_the_budget_nothing_more_is_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_device, "parity", None)
    monkeypatch.setattr(bench_device, "peaks_of", lambda kind: (1e12, 1e11))
    path = tmp_path / "device.json"
    main(options(path, budget=1e-9))
    found = json.loads(path.read_text())
    assert "seconds had passed" in found["parity"]["not_measured"]
    assert found["peaks_of_data_sheet"] == {"flops": 1e12, "bandwidth": 1e11}
    assert "tiny update xla: not measured" in capsys.readouterr().out


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="--models names gpt-9"):
        main(options(tmp_path / "x.json", models="tiny,gpt-9"))


def test_peaks_of_chips_and_gpus():
    assert peaks_of("TPU v5") == (459e12, 2765e9)
    assert peaks_of("NVIDIA H200") == (989e12, 4800e9)
    assert peaks_of("TPU v4")[0] == 275e12 / 2  # a device is half of a chip
    assert peaks_of("cpu") is None
