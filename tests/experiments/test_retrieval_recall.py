"""The measurement of retrieval as a command, on dialogues of any length."""

import json
import os
import pathlib
import subprocess
import sys

from experiments.retrieval_recall import most, train_tokenizer
from memr1_jax.data.locomo import load_conversations
from memr1_jax.text.plain import plain_encoder

ROOT = pathlib.Path(__file__).parents[2]


def _conversation(identity, turns, questions):
    """Makes a dialogue in which turn i tells the only fact about thing i."""
    said = [
        {"speaker": "KL"[i % 2], "dia_id": f"D1:{i + 1}", "text": f"I own thing{i}."}
        for i in range(turns)
    ]
    asked = [
        {"question": f"Who owns thing{i}?", "answer": "K", "evidence": [f"D1:{i + 1}"]}
        for i in range(questions)
    ]
    return {
        "sample_id": identity,
        "conversation": {
            **{"speaker_a": "K", "speaker_b": "L"},
            **{"session_1_date_time": "1 May 2024", "session_1": said},
        },
        "qa": [question | {"category": 4} for question in asked],
    }


def _run(path):
    command = [sys.executable, "-m", "experiments.retrieval_recall", f"--data_path={path}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [*command, "--nostatic", "--nominilm", "--features=64"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_longer_dialogues_than_locomos_are_measured(tmp_path):
    path = tmp_path / "long.json"
    sizes = {"train-1": (3, 2), "validation-1": (40, 0), "test-1": (900, 300)}
    path.write_text(json.dumps([_conversation(name, *size) for name, size in sizes.items()]))
    done = _run(path)
    assert done.returncode == 0, done.stderr
    assert "2 train, 0 validation, 300 test" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "BM25" in line]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells[1:4] == ["100.0"] * 3 and cells[4:7] == ["–"] * 3 and cells[-1] == "100.0"


def test_no_turn_is_too_long_to_be_read_whole(tmp_path):
    path = tmp_path / "wide.json"
    talk = _conversation("train-1", 3, 2)
    talk["conversation"]["session_1"][1]["text"] = " ".join(["word"] * 300)
    path.write_text(json.dumps([talk]))
    conversations = load_conversations(path)
    tokenizer = train_tokenizer(["word by word", "K owns a thing"])
    sizes = most(conversations, tokenizer)
    assert sizes.turns == 30 and sizes.questions == 2
    assert sizes.width == len(plain_encoder(tokenizer)("L: " + " ".join(["word"] * 300))) >= 300


def test_a_file_without_evidence_is_refused(tmp_path):
    path = tmp_path / "none.json"
    names = ("train-1", "validation-1", "test-1")
    path.write_text(json.dumps([_conversation(name, 3, 0) for name in names]))
    done = _run(path)
    assert done.returncode == 2 and '"evidence"' in done.stderr and "Traceback" not in done.stderr
