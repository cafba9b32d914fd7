"""Whole tables with the tiny model: killed and resumed, honest about what did not run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import tiny_folder

from memr1_jax.bench.reply_cache import ReplyCache
from memr1_jax.bench.tables.job import make_table
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.errors import UserError

ROOT = Path(__file__).parents[3]
SIZES = {
    "data": "synthetic",
    "synthetic_sessions": 2,
    "synthetic_facts": 1,
    "answer_prompt": "compact",
    "manager_prompt": "compact",
    "facts": "noted",
    "answer_response_length": 4,
    "manager_response_length": 30,
    "eval_batch": 1,
    "features": 64,
    "eval_questions": 1,
}


def options(output, **changes):
    return TableConfig(**SIZES | {"model": str(tiny_folder()), "output": str(output)} | changes)


def files(folder):
    """Returns all files of a table but those that tell the time, and the replies, which do too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "timing" not in path.name and not path.name.startswith("replies")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    rows = "bm25_turns,mem0_constrained,dense_summaries,memory_r1@none"
    make_table(options(folder, rows=rows))
    return folder, rows


def test_a_table_that_broke_off_goes_on_to_the_same_files(whole, tmp_path, monkeypatch):
    folder, rows = whole
    put, kept = ReplyCache.put, []

    def failing(self, replies):
        put(self, replies)
        kept.append(replies)
        if len(kept) == 3:  # in the middle of the second row
            raise KeyboardInterrupt

    monkeypatch.setattr(ReplyCache, "put", failing)
    with pytest.raises(KeyboardInterrupt):
        make_table(options(tmp_path, rows=rows))
    cut = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert cut["bm25_turns"]["status"] == "done"
    assert cut["mem0_constrained"]["status"] == "not run"
    assert "stopped before it" in (tmp_path / "table.md").read_text()
    make_table(options(tmp_path, rows=rows))
    assert len(kept) > 3
    assert files(tmp_path) == files(folder)


@pytest.mark.slow
def test_a_killed_table_goes_on_to_the_same_files(whole, tmp_path):
    folder, rows = whole
    # The process kills itself in the middle of the second row, after its second batch is kept.
    script = (
        "import os, signal, sys\n"
        "from memr1_jax.bench import reply_cache\n"
        "put, kept = reply_cache.ReplyCache.put, []\n"
        "def dying(self, replies):\n"
        "    put(self, replies)\n"
        "    kept.append(1)\n"
        "    if len(kept) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "reply_cache.ReplyCache.put = dying\n"
        "sys.argv[0] = 'evaluate'\n"
        "import runpy\n"
        "runpy.run_module('experiments.evaluate', run_name='__main__')\n"
    )
    chosen = options(tmp_path, rows=rows)
    flags = [f"--{name}={value}" for name, value in (SIZES | {"rows": rows}).items()]
    flags += [f"--model={chosen.model}", f"--output={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    killed = subprocess.run(
        [sys.executable, "-c", script, *flags], cwd=ROOT, env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (tmp_path / "rows/bm25_turns.json").exists()
    assert not (tmp_path / "rows/mem0_constrained.json").exists()
    cut = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert cut["bm25_turns"]["status"] == "done"
    assert cut["mem0_constrained"]["status"] == "not run"

    make_table(chosen)
    assert files(tmp_path) == files(folder)


def test_what_did_not_run_says_so(whole):
    folder, _ = whole
    results = json.loads((folder / "results.json").read_text())
    rows = results["rows"]
    assert rows["bm25_turns"]["questions"] == 1
    assert rows["bm25_turns"]["judge"] == "not run"
    assert rows["bm25_turns"]["evidence"]["recall"] == 1.0
    assert rows["mem0_constrained"]["unreadable"] == 0
    assert rows["mem0_constrained"]["calls"]["manage"]["calls"] > 1
    assert "summaries" in rows["dense_summaries"]["reason"]
    assert "--agents" in rows["memory_r1@none"]["reason"]
    text = (folder / "table.md").read_text()
    assert "asked here: 1 of the" in text
    assert "| dense_summaries | not run: " in text
    for name in ("bars.png", "tokens.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert "| mem0_constrained | manage |" in (folder / "timing.md").read_text()


def test_every_line_of_a_table_is_as_wide_as_its_header(whole):
    folder, _ = whole
    for name in ("table.md", "timing.md"):
        for part in (folder / name).read_text().split("\n\n"):
            widths = {line.count("|") for line in part.splitlines() if line.startswith("|")}
            assert len(widths) <= 1, part


def test_a_finished_table_is_only_read(whole, monkeypatch):
    folder, rows = whole
    before = files(folder)
    monkeypatch.setattr("memr1_jax.bench.tables.job.run_row", None)
    make_table(options(folder, rows=rows))
    assert files(folder) == before
    make_table(options(folder, rows=rows, against="bm25_turns"))
    (found,) = json.loads((folder / "results.json").read_text())["differences"].items()
    assert found[0] == "mem0_constrained"
    assert found[1]["f1_set_of_words"]["questions"] == 1
    assert "## Against bm25_turns" in (folder / "table.md").read_text()
    make_table(options(folder, rows=rows))
    assert files(folder) == before


def test_another_table_is_not_mixed_in(whole):
    folder, _ = whole
    with pytest.raises(UserError, match="--against=noop is none of --rows=bm25_turns"):
        make_table(options(folder, rows="bm25_turns", against="noop"))
    with pytest.raises(UserError, match=r"--eval_questions=3 \(was 1\)"):
        make_table(options(folder, rows="noop", eval_questions=3))
    with pytest.raises(UserError, match="no row 'magic'"):
        make_table(options(folder, rows="magic"))
    with pytest.raises(UserError, match="backbone '7b'"):
        make_table(options(folder, rows="noop:7b"))
    with pytest.raises(UserError, match="power of two"):
        make_table(options(folder, eval_batch=3))
