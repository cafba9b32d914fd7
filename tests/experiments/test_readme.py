"""The page that shows how to run experiments, and its example of a user's own dialogues."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import pytest
from tiny_model import options

from memr1_jax.bench.judge import endpoint
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.data.benchmarks import BENCHMARKS, load_benchmark
from memr1_jax.data.dialogues import DataConfig, load_dialogues
from memr1_jax.errors import UserError
from memr1_jax.options import flag_values
from memr1_jax.training.config import EvaluationConfig, ExperimentConfig
from memr1_jax.training.experiment import Experiment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def example(tmp_path):
    (text,) = _blocks("jsonl")
    path = tmp_path / "dialogues.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_is_read_as_the_page_says(example, recwarn):
    benchmark = load_benchmark("own", example)
    assert not recwarn
    garden, move, chat = benchmark.conversations
    assert benchmark.description.startswith("dialogues.jsonl: 3 conversations, 5 sessions")
    assert [c.split for c in benchmark.conversations] == ["train", "validation", "test"]
    assert garden.times == {1: "9:05 am on 1 June, 2023", 2: "6:30 pm on 4 July, 2023"}
    assert [q.answer for q in garden.questions] == ["1", "a fig tree"]
    assert garden.questions[0].evidence == ("D1:1", "D2:1")
    assert [(s.time, len(s.turns)) for s in move.sessions] == [("2024-02-01", 2), ("2024-03-09", 1)]
    asked = [[question.answer for question in stage.questions] for stage in move.stages]
    assert asked == [["Oslo"], ["Bergen"]]
    assert chat.one_bank and chat.speakers == ("user", "assistant")
    assert [q.abstain for q in chat.questions] == [False, True]
    assert load_benchmark("own", example, split="test").conversations == (chat,)


def test_an_experiment_reads_the_example(example, tmp_path):
    chosen = DataConfig(data="own", data_path=str(example))
    with pytest.warns(UserWarning, match='"after" asks amid the dialogue are left out: 1'):
        train, evaluation = load_dialogues(chosen, 0, tmp_path)
    assert [c.id for c in train] == ["garden"] and [c.id for c in evaluation] == ["move"]
    assert [fact.text for fact in train[0].facts] == [
        "Ana: I planted two apple trees.",
        "Ben: I only have a fig tree.",
        "Ana: One of my apple trees died.",
    ]
    assert [q.answer for q in evaluation[0].questions] == ["Bergen"]


@pytest.mark.filterwarnings("ignore:Questions of")
def test_without_splits_all_is_used_with_a_warning(example, tmp_path):
    example.write_text(re.sub(r'"split": "\w+", ', "", example.read_text()))
    chosen = DataConfig(data="own", data_path=str(example))
    with pytest.warns(UserWarning, match='has a "split"'):
        train, evaluation = load_dialogues(chosen, 0, tmp_path)
    assert len(train) == 3 and [c.id for c in train] == [c.id for c in evaluation]
    # One question abstains: it is asked, but not learned from.
    asked = [[q.abstain for c in part for q in c.questions] for part in (train, evaluation)]
    assert [part.count(True) for part in asked] == [0, 1]
    assert len(asked[0]) == len(asked[1]) - 1
    with pytest.raises(UserError, match="--data=own needs --data_path"):
        load_dialogues(DataConfig(data="own"), 0, tmp_path)


def test_questions_that_abstain_are_left_out_of_training_and_counted(tmp_path):
    turns = [{"speaker": name, "text": f"{name} sings."} for name in ("Ana", "Ben")]
    known = {"question": "Who sings?", "answer": "Ana", "evidence": ["D1:1"]}
    unknown = {"question": "Who dances?", "abstain": True, "evidence": ["D1:1"]}
    path = tmp_path / "mine.jsonl"

    def load(*questions, **more):
        lines = [
            {"id": split, "split": split, "turns": turns, "questions": asked}
            for split, asked in (("train", questions), ("validation", [known, unknown]))
        ]
        path.write_text("\n".join(map(json.dumps, lines)))
        chosen = DataConfig(data="own", data_path=str(path))
        return load_dialogues(chosen, 0, tmp_path, **more)

    with pytest.warns(UserWarning, match="does not say are left out of training: 2"):
        train, evaluation = load(unknown, known, unknown)
    assert [q.question for q in train[0].questions] == ["Who sings?"]
    assert len(evaluation[0].questions) == 2
    with pytest.raises(UserError, match="mine.jsonl: there is nothing to learn from. All 2 quest"):
        load(unknown, unknown)
    assert load(unknown, learn=False)[1] == evaluation


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Questions of")
def test_both_agents_learn_from_the_example(example, tmp_path):
    made = options(tmp_path / "run", data="own", data_path=str(example), agent="both")
    Experiment(made).run()
    told = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {record["agent"] for record in told} == {"manager", "answer"}
    stored = json.loads((tmp_path / "run/evaluation_after.json").read_text())
    assert stored["questions"] == 1 and stored["manager"]["turns"] == 3
    assert stored["scores"][0]["name"] == "without category"


def test_every_data_set_is_on_the_page():
    assert set(BENCHMARKS) <= set(re.findall(r"`(\w+)`", PAGE))
    for text in _blocks("python"):
        compile(text, "README.md", "exec")


def test_the_commands_exist():
    fields = {
        "experiments.locomo_grpo": ExperimentConfig,
        "experiments.locomo_eval": EvaluationConfig,
        "experiments.evaluate": TableConfig,
    }
    commands = "\n".join(_blocks("bash")).replace("\\\n", " ").splitlines()
    commands = [line for line in commands if line.strip()]
    assert len(commands) == 8
    for line in commands:
        module = re.match(r"python -m (\S+)", line)[1]
        assert importlib.util.find_spec(module)
        known = flag_values(fields[module]())
        for name, value in re.findall(r"--(\w+)=?(\S*)", line):
            if name == "flagfile":
                assert (ROOT / value).is_file()
            else:
                assert name in known


def test_a_judge_is_named_by_flags_that_there_are():
    """Messages of the endpoint name flags of `experiments.evaluate`, which the page explains."""
    source = Path(endpoint.__file__).read_text(encoding="utf-8")
    named = set(re.findall(r"--(\w+)", source))
    assert named == {"judge_url", "judge_model"}
    assert named <= {field.name for field in dataclasses.fields(TableConfig)}
    assert all(f"`--{name}`" in PAGE for name in named)
    assert all(f"`{name}`" in PAGE for name in endpoint.KEY_VARIABLES)
