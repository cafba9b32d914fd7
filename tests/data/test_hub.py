"""Data sets of the Hugging Face hub, with a folder in its place."""

import json
import socket
import sys

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from memr1_jax.data.benchmarks import load_benchmark
from memr1_jax.data.dialogues import DataConfig, load_dialogues
from memr1_jax.data.hub import local_path, one_file
from memr1_jax.errors import UserError

DIALOGUE = {
    "turns": [
        {"speaker": "Ana", "text": "I have a dog, Rex."},
        {"speaker": "Ben", "text": "I live in Oslo."},
    ],
    "questions": [{"question": "Who is the dog?", "answer": "Rex", "evidence": ["D1:1"]}],
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Returns a folder that the hub gives for every name, and the requests that it got."""
    folder, calls = tmp_path / "snapshot", []
    folder.mkdir()

    def snapshot_download(name, **options):
        calls.append((name, options["repo_type"], options["allow_patterns"]))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path / "cache"))
    return folder, calls


def _write(path, *dialogues):
    path.write_text("".join(f"{json.dumps(dialogue)}\n" for dialogue in dialogues))
    return path


def test_a_path_is_no_name_of_the_hub(hub, tmp_path):
    assert local_path(tmp_path) == tmp_path
    assert not hub[1]


def test_the_only_file_of_a_data_set_is_taken(hub):
    folder, calls = hub
    path = _write(folder / "dialogues.jsonl", DIALOGUE)
    (folder / "README.md").write_text("Ours.")
    assert one_file("hf:owner/name") == path
    assert calls == [("owner/name", "dataset", ["*.json", "*.jsonl", "*.csv"])]


def test_of_several_files_one_is_named(hub):
    folder, calls = hub
    (folder / "parts").mkdir()
    first = _write(folder / "parts" / "a.jsonl", DIALOGUE)
    _write(folder / "b.jsonl", DIALOGUE)
    with pytest.raises(UserError, match="folder with b.jsonl, parts/a.jsonl: name one file"):
        one_file("hf:owner/name")
    assert one_file("hf:owner/name/parts/a.jsonl") == first
    assert calls[-1] == ("owner/name", "dataset", ["parts/a.jsonl"])
    with pytest.raises(UserError, match="owner/name of the hub holds no c.json"):
        one_file("hf:owner/name/c.json")


@pytest.mark.parametrize("name", ["hf:", "hf:owner", "hf:owner/", "hf:/name"])
def test_a_name_has_an_owner(name, hub):
    with pytest.raises(UserError, match=f"{name} should read hf:OWNER/NAME"):
        local_path(name)
    assert not hub[1]


def test_a_hub_that_does_not_answer_is_a_sentence(hub, monkeypatch):
    def offline(name, **options):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"hf:o/n: the Hugging Face hub did not give it .*HF_TOKEN"):
        local_path("hf:o/n")


def test_what_is_cached_needs_no_network(tmp_path, monkeypatch):
    """Lays out a folder as the client's own cache, and allows no connection."""
    cache = tmp_path / "hub" / "datasets--owner--name"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    path = _write(snapshot / "dialogues.jsonl", DIALOGUE)

    def refuse(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert one_file("hf:owner/name") == path


def test_a_run_and_a_benchmark_read_it(hub, tmp_path):
    _write(
        hub[0] / "dialogues.jsonl", {**DIALOGUE, "split": "train"}, {**DIALOGUE, "split": "test"}
    )
    options = DataConfig(data="own", data_path="hf:owner/name", eval_split="test")
    train, evaluated = load_dialogues(options, 0, tmp_path)
    assert [c.questions[0].answer for c in (*train, *evaluated)] == ["Rex", "Rex"]
    assert len(load_benchmark("own", "hf:owner/name").conversations) == 2


def test_tables_become_dialogues_of_their_splits(hub, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra of that name is not installed")
    fact = {"speaker": "Ana", "text": "Has a dog.", "sources": ["D1:1"]}
    other = {"turns": DIALOGUE["turns"], "facts": [fact]}
    made = datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list([{**DIALOGUE, "facts": None}, other])
            for split in ("train", "test")
        }
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name: made)
    path = one_file("hf:owner/name")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"split": "train", **DIALOGUE}
    assert lines[3] == {"split": "test", **other}
    assert [c.split for c in load_benchmark("own", path).conversations] == ["train"] * 2 + [
        "test"
    ] * 2


def test_tables_need_an_extra(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r'pip install "memr1_jax\[datasets\]".*hf:owner/name/FILE'):
        one_file("hf:owner/name")
