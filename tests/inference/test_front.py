"""The public face: its names, configurations by name, and a whole run from Python."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import options

import memr1_jax as m1
from memr1_jax.agents.agent_folder import read_settings
from memr1_jax.options import flag_values

FLAGS = Path(__file__).parents[2] / "experiments" / "flags"
MODELS = {
    "llama31_8b": "llama-3.1-8b",
    "qwen25_3b": "qwen-2.5-3b",
    "qwen25_7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen25_14b": "Qwen2.5-14B",
    "qwen3_4b": "qwen3-4b",
    "gemma3_1b": "google/gemma-3-1b-it",
    "gemma3_4b": "gemma-3-4b",
}


def test_the_import_alone_waits_for_nothing():
    code = "import sys, memr1_jax; print([m for m in ('jax', 'numpy', 'absl') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert set(m1.__all__) <= set(dir(m1))
    assert all(callable(getattr(m1, name)) for name in m1.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        m1.nothing  # noqa: B018


def test_configurations_are_those_of_the_flag_files():
    assert m1.Config.quickstart() == m1.Config.from_flags(FLAGS / "quickstart.flags")
    assert m1.Config.quickstart().model == "nano"
    found = set()
    for stem, name in MODELS.items():
        for algorithm in ("grpo", "ppo", "sft", "sft_best_of_n", "grpo_dense"):
            path = FLAGS / f"{stem}_{algorithm}.flags"
            if path.exists():
                found.add(path)
                assert m1.Config.paper(name, algorithm) == m1.Config.from_flags(path)
    lines = {path: path.read_text().splitlines() for path in FLAGS.glob("*.flags")}
    assert found == {
        path
        for path, flags in lines.items()
        if any(line.startswith("--flagfile=") and "/paper/" in line for line in flags)
    }
    assert len(found) == 17
    assert m1.Config.paper().model == "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: c.paper("gpt-2", "grpo"), "no settings of the paper for 'gpt-2'"),
        (lambda c: c.paper("qwen-2.5-3b", "sft"), "'qwen-2.5-3b' with 'sft'"),
        (lambda c: c.from_flags("nothing.flags"), "no flag file nothing.flags"),
        (lambda c: c().replace(answer_step=2), "no option answer_step"),
        (lambda c: c().replace(answer_steps="2"), "--answer_steps='2' must be a whole number"),
        (lambda c: c().replace(batch=0), "--batch=0 must be at least 1"),
        (lambda c: c().replace(constrained=1), "--constrained=1 must be true or false"),
        (lambda c: c().replace(learning_rate=True), "--learning_rate=True must be a number"),
        (lambda c: c().replace(reward="bleu"), "no reward named 'bleu'"),
    ],
)
def test_what_there_is_not_is_told_in_a_sentence(make, message):
    with pytest.raises(m1.UserError, match=message):
        make(m1.Config)


def test_options_change_by_flag():
    changed = m1.Config.quickstart().replace(answer_steps=2, group=4, learning_rate=1)
    assert (changed.answer_steps, changed.policy.group, changed.learning_rate) == (2, 4, 1)


def test_flags_of_a_file_win_over_the_models_settings(tmp_path):
    file = tmp_path / "mine.flags"
    file.write_text("--model=nano\n--memories=30\n")
    found = m1.Config.from_flags(file)
    assert (found.memories, found.neighbours) == (30, 3)
    file.write_text("--memory=30\n")
    with pytest.raises(m1.UserError, match="memory"):
        m1.Config.from_flags(file)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs one step of each agent, with a reward of one's own."""
    few = {"manager_steps": 1, "answer_steps": 1, "eval_questions": 1}
    config = options(**few, kl_weight=0.0, synthetic_train=2, synthetic_eval=2)
    output = tmp_path_factory.mktemp("runs") / "mine"
    return m1.train(config, output=output, reward=written)


def written(answer, gold, report):
    """Pays for what the manager adds; the Answer Agent is paid the same for everything."""
    return 0.25 + report.add


def test_training_uses_the_reward_that_it_is_given(run):
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    steps = {r["agent"]: r for r in map(json.loads, lines) if r["phase"] == "train"}
    assert steps["answer"]["reward"] == 0.25
    assert steps["manager"]["reward"] == pytest.approx(0.25 + steps["manager"]["add"])
    assert steps["manager"]["add"] > 0
    record = json.loads((run.folder / "run.json").read_text())
    assert record["options"]["reward"].endswith(":written")
    assert len(record["inputs"]["--reward"]["digest"]) == 32


def test_a_run_shows_what_changed(run):
    heads, rule, *rows = run.table().splitlines()
    assert heads.split() == ["what", "before", "after"]
    assert [row.rsplit(None, 2)[0].partition(",")[0] for row in rows] == [
        "training reward of the manager agent",
        "training reward of the answer agent",
        "validation f1_set_of_words",
        "validation bleu1_method1",
        "validation exact_match",
    ]
    assert str(run).startswith(str(run.folder))
    assert m1.Run(run.folder.parent).table() == "(nothing was measured)"


def test_a_run_hands_over_its_agents(run):
    agents = run.agents()
    settings = read_settings(run.folder / "export" / "answer")
    kept = flag_values(agents.options)
    assert settings.options.items() <= kept.items()
    assert settings.facts == "noted" and settings.embedder is not None
    assert agents.models.manager.folder == run.folder / "export" / "manager"
    assert agents.models.answerer.folder == run.folder / "export" / "answer"
