"""Parts of a table: data, models by their names, verdicts, Markdown and points of the plots."""

import dataclasses
import json

import pytest
from tiny_model import tiny_folder

from memr1_jax.bench.judge.judge_prompts import PROMPTS, judge_prompt
from memr1_jax.bench.judge.judging import Judge, Outcome
from memr1_jax.bench.scoring import METRICS, Answered, summarise
from memr1_jax.bench.tables import judge_column
from memr1_jax.bench.tables.data import load_table_data, table_source
from memr1_jax.bench.tables.differences import differences
from memr1_jax.bench.tables.judge_column import judging
from memr1_jax.bench.tables.models import Models, identities, parse_names, split_name
from memr1_jax.bench.tables.pictures import points
from memr1_jax.bench.tables.rows import Row
from memr1_jax.bench.tables.table_config import TableConfig, check_table
from memr1_jax.bench.tables.table_files import TableRow, markdown, results, timing_markdown
from memr1_jax.bench.usage import EvidenceFound
from memr1_jax.data.benchmarks import BENCHMARKS
from memr1_jax.data.locomo import LOST_ALL
from memr1_jax.data.locomo_summaries import read_summaries
from memr1_jax.data.synthetic import generate
from memr1_jax.data.types import Question
from memr1_jax.errors import UserError

ABOUT = {
    "title": "Test",
    "models": {"base": {"model": "m"}},
    "dtype": "float32",
    "embedder": "tfidf",
    "answer_prompt": "compact",
    "facts": "noted",
    "paper": [],
    "against": "",
}


def answered(index, conversation="c", category=4, **scores):
    return Answered(
        conversation=conversation,
        index=index,
        id="",
        kind="",
        category=category,
        question=f"Question {index}?",
        gold="tea",
        response="tea",
        answer="tea",
        rule="whole",
        abstain=False,
        scores=scores,
        evidence=EvidenceFound((), ("D1:1",), ()),
        memories=(),
    )


def row(name, items, **changes):
    usage = {"calls": 2, "prompt_tokens": 90, "tokens": 10, "cut_off": 0, "cut_prompts": 0}
    figures = {
        "questions": len(items),
        "calls": {"all": usage},
        "operations": dict.fromkeys(("add", "update", "delete", "none"), 1),
        "unreadable": 0,
        "recovered": 0,
        "unknown_ids": 3,
        "gone_ids": 1,
        "bank": {"items": 1200, "tokens": 5},
        "memories_without_room": 0,
        "evidence": {
            "questions": 2,
            "recall": 0.5,
            "complete": 0.4,
            "never_stored": 0.25,
            "not_retrieved": 0.25,
        },
    }
    timing = {"answer": {"calls": 2, "p50": 1.0, "p95": 2.0}}
    return TableRow(name, Row(items, figures, timing), items, summarise(items), **changes)


def test_the_table_tells_scores_intervals_and_what_did_not_run():
    items = [answered(0, f1=1.0), answered(1, f1=0.0), answered(2, "d", category=2, f1=0.5)]
    text = markdown(ABOUT, [row("one", items), TableRow("two", reason="No data.")])
    overall, by_kind = text.split("## By kind")
    assert "| one | 3 | 50.00 [0.0, 100.0] [50.0, 50.0] | not run |" in overall
    assert "| two | not run: No data. |  |  |" in overall
    assert "temporal (n = 1, in the papers' tables Temporal)" in by_kind
    assert "| one | 50.00 [0.0, 100.0] | 50.00 |" in by_kind  # of one question there is no interval
    assert (
        "| one | 1,200 | 5 | 1 | 1 | 1 | 1 | 0 | 0 | 3 | 1 | 50.0 | 40.0 | 25.0 | 25.0 | 2 | 0 |"
        in text
    )
    assert results(ABOUT, [TableRow("two", reason="No data.")])["rows"]["two"] == {
        "status": "not run",
        "reason": "No data.",
    }


def test_rows_are_compared_question_by_question():
    talks = ("a", "a", "b", "b")
    plain = [answered(i, talk, f1=0.4, em=0.0) for i, talk in enumerate(talks)]
    better = [answered(i, talk, f1=0.5, em=float(i == 3)) for i, talk in enumerate(talks)]
    better.append(answered(9, category=5, f1=0.0))  # adversarial, and not asked of the other
    rows = [row("plain", plain), row("better", better), TableRow("third", reason="No data.")]
    compared = differences({"plain": plain, "better": better}, "plain")
    text = markdown(ABOUT | {"against": "plain"}, rows, compared)
    section = text.split("## Against plain")[1].split("\n## ")[0]
    # 0.1 on every question is sure; an exact match on one of four, in one of two talks, is not.
    assert "| better | +10.00 [10.0, 10.0] [10.0, 10.0] (+25 %) | +25.00 [0.0, 75.0] [0" in section
    assert "| plain |" not in section and "third" not in section
    found = results(ABOUT, rows, compared)["differences"]["better"]
    assert found["em"]["relative"] is None and found["em"]["questions"] == 4
    assert "Against" not in markdown(ABOUT, rows)
    assert differences({"better": better}, "plain") == results(ABOUT, rows)["differences"] == {}


def test_adversarial_questions_have_their_own_metric():
    items = [answered(0, f1_set_of_words=1.0), answered(1, category=5, f1_locomo_official=1.0)]
    text = markdown(ABOUT, [row("one", items)])
    assert "| one | 1 | 100.00 |" in text
    assert "| one | 100.00 | 100.00 (f1_locomo_official) |" in text


def test_the_papers_figures_stand_below_ours():
    about = ABOUT | {"paper": ["locomo", "latency"]}
    items = [answered(0, f1=1.0)]
    text = markdown(about, [row("one", items)])
    assert "## What the paper reports" in text
    assert "12.25 / 9.77 / 13.81" in text.split("## What the paper reports")[1]
    times = timing_markdown(about, [row("one", items)])
    assert "| one | answer | 2 | 1.000 | 2.000 |" in times
    assert "## What the paper reports, in seconds" in times
    assert "paper reports" not in markdown(ABOUT, []) + timing_markdown(ABOUT, [])
    with pytest.raises(UserError, match="--paper=magic is none of locomo"):
        check_table(TableConfig(paper="locomo, magic"))


def test_points_of_the_plots():
    items = [answered(n, f1=float(n % 2)) for n in range(40)]
    made = row("one", items)
    ((mean, low, high),) = points("f1", [made])
    assert mean == 50
    assert 30 < low < 42
    assert 58 < high < 70
    assert made.tokens_per_question == 100 / 40


def test_verdicts_join_the_scores(monkeypatch, tmp_path):
    asked = []

    def ask(requests):
        asked.extend(requests)
        for request in requests:
            right = "Question 0?" in request.messages[-1][1]
            yield Outcome(json.dumps({"label": "CORRECT" if right else "WRONG"}), 0.1)

    monkeypatch.setattr(judge_column, "_judge", lambda options: Judge("fake", ask, 8))
    judge = judging(TableConfig(judge_model="fake"), tmp_path)
    items = [answered(0, f1=1.0), answered(1, f1=0.0), answered(2, category=5, f1=0.0)]
    marked, cell = judge("row", items)
    assert [item.scores.get("judge") for item in marked] == [1.0, 0.0, None]
    assert cell.startswith("50.00 [")
    assert summarise(marked)[-1]["metrics"]["judge"]["mean"] == 0.5
    assert judge("row", items)[0] == marked
    assert len(asked) == 2  # nothing twice, nothing adversarial
    assert judging(TableConfig(), tmp_path) is None
    assert judging(TableConfig(data="personamem_32k", judge_model="x"), tmp_path) is None


@pytest.mark.parametrize("name", [*BENCHMARKS, "synthetic"])
def test_every_benchmark_says_how_it_is_scored_and_judged(name):
    source = table_source(name)
    asked = Question("Where?", "(a)", category=1, evidence=(), index=0, options=("(a) Oslo",))
    assert METRICS[source.metrics]("(a)", asked, False)
    unjudged = ("personamem", "fact_consolidation")  # a choice, or an exact answer
    assert name.startswith(unjudged) if not source.judge else source.judge in PROMPTS


def test_an_answer_is_judged_by_its_own_benchmark(monkeypatch, tmp_path):
    systems = []

    def ask(requests):
        systems.extend(request.messages for request in requests)
        yield from (Outcome("yes", 0.1) for _ in requests)

    monkeypatch.setattr(judge_column, "_judge", lambda options: Judge("fake", ask, 8))
    for name in ("msc", "longmemeval_s", "locomo"):
        items = [dataclasses.replace(answered(0), kind="multi-session")]
        judging(TableConfig(data=name, judge_model="fake"), tmp_path / name)("row", items)
    filled = [
        judge_prompt(prompt).fill("Question 0?", "tea", "tea")
        for prompt in ("msc_strict", "longmemeval_default", "locomo")
    ]
    assert [found for found in systems if found in filled] == filled


@pytest.mark.filterwarnings("ignore:.*edition", "ignore:.*no such turn")
def test_irregular_evidence_is_counted_with_the_data(tmp_path):
    (record,) = generate(0, 1, num_sessions=1)
    for question in record["qa"][:2]:
        question["evidence"] = ["D99:1"]
    path = tmp_path / "dialogues.json"
    path.write_text(json.dumps([record]))
    data = load_table_data(TableConfig(data="locomo", data_path=str(path)), tmp_path)
    assert data.irregular == {LOST_ALL: 2}
    text = markdown(ABOUT | {"irregular": data.irregular}, [row("one", [answered(0, f1=1.0)])])
    assert f"Irregular in the data: {LOST_ALL}: 2." in text
    assert "Irregular" not in markdown(ABOUT, [row("one", [answered(0, f1=1.0)])])


def test_a_rubric_is_judged_line_by_line(monkeypatch, tmp_path):
    asked = []

    def ask(requests):
        for request in requests:
            asked.append(request.messages[0][1].split("Requirement: ")[1].splitlines()[0])
            reply = "yes" if "tea" in asked[-1] else "no"
            yield Outcome("maybe" if asked[-1] == "unclear" else reply, 0.0)

    monkeypatch.setattr(judge_column, "_judge", lambda options: Judge("fake", ask, 8))
    judge = judging(TableConfig(data="beam_100K", judge_model="fake"), tmp_path)
    rubrics = (("says tea", "says cake", "no more than tea", "in a list"), ("unclear", "says tea"))
    items = [
        dataclasses.replace(answered(i, category=0), answer="-", gold="all", rubric=rubric)
        for i, rubric in enumerate(rubrics)
    ]
    marked, cell = judge("row", items)
    assert [item.scores.get("judge") for item in marked] == [0.5, None]
    assert cell.startswith("50.00") and "1 unreadable" in cell
    assert [item.gold for item in marked] == ["all", "all"]
    # Equal lines of different questions are asked apart; what could not be read, once more.
    assert asked == [*rubrics[0], *rubrics[1], "unclear"]


def test_of_several_right_answers_the_best_counts():
    question = Question("Who?", "Eve", 0, (), 0, accepted=("Eve Fox", "E. Fox"))
    scores = METRICS["accepted"]("It is Eve Fox.", question, False)
    assert scores["contains_answer"] == 1 and scores["f1_set_of_words"] == 2 * 2 / 6
    assert METRICS["accepted"]("Evelyn", question, False)["contains_answer"] == 0


def test_a_benchmark_that_nobody_knows_is_judged_by_no_other():
    with pytest.raises(UserError, match="There is no data set 'mcs'"):
        judging(TableConfig(data="mcs", judge_model="x"), None)


def test_names_of_models_and_rows(tmp_path):
    assert parse_names("agents", "a=x, b=y/z") == {"a": "x", "b": "y/z"}
    for wrong in ("a", "a=", "a@b=c"):
        with pytest.raises(UserError, match="--agents"):
            parse_names("agents", wrong)
    options = TableConfig(model="one", backbones="7b=two")
    assert split_name(options, "mem0") == ("mem0", "one")
    assert split_name(options, "memory_r1@grpo:7b") == ("memory_r1@grpo", "two")

    (tmp_path / "export/answer").mkdir(parents=True)
    models = Models(str(tiny_folder()), {"sft": str(tmp_path), "none": "/nowhere"}, "float32", None)
    assert list(models) == ["base", "answer@sft"]
    assert models.trained == {"sft": {"answer"}, "none": frozenset()}
    assert models["base"] is models["base"]


def test_models_are_known_by_their_weights(tmp_path):
    options = TableConfig(model=str(tiny_folder()), agents=f"sft={tmp_path}")
    (tmp_path / "export/answer").mkdir(parents=True)
    (tmp_path / "export/answer/model.safetensors").write_bytes(b"one")
    first = identities(options, ["memory_r1@sft", "mem0"])
    assert set(first) == {"base", "answer@sft"}
    (tmp_path / "export/answer/model.safetensors").write_bytes(b"two")
    second = identities(options, ["memory_r1@sft", "mem0"])
    assert first["base"] == second["base"]
    assert first["answer@sft"]["digest"] != second["answer@sft"]["digest"]


def test_generated_dialogues_by_split(tmp_path):
    options = TableConfig(data="synthetic", synthetic_sessions=2, eval_split="validation")
    data = load_table_data(options, tmp_path)
    assert [c.id.split("-")[0] for c in data.conversations] == ["validation"]
    assert [c.id.split("-")[0] for c in data.statistics] == ["train"]
    again = load_table_data(dataclasses.replace(options, eval_questions=1), tmp_path)
    assert sum(len(c.questions) for c in again.conversations) == 1
    assert "asked here: 1 of the" in again.title
    (talk,) = data.conversations
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({talk.id: [talk.questions[1].index]}))
    named = load_table_data(dataclasses.replace(options, questions=str(listed)), tmp_path)
    assert [c.questions for c in named.conversations] == [(talk.questions[1],)]
    assert "those of the list list.json, of 1 of 1 conv" in named.title
    assert named.sha256.keys() == data.sha256.keys() | {"list.json"}
    with pytest.raises(UserError, match="--eval_split=half must be one of"):
        check_table(dataclasses.replace(options, eval_split="half"))


def test_summaries_of_sessions(tmp_path):
    path = tmp_path / "talks.json"
    sample = {"sample_id": "a", "session_summary": {"session_2_summary": "They met.", "x": 1}}
    path.write_text(json.dumps([sample, {"sample_id": "b"}]))
    assert read_summaries(path) == {"a": {2: "They met."}, "b": {}}
    sample["session_summary"]["session_2_summary"] = 7
    path.write_text(json.dumps([sample]))
    with pytest.raises(UserError, match="session_2_summary"):
        read_summaries(path)
