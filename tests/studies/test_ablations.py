"""The ablations: which runs they take, what is reported of them, and that none is done twice."""

import dataclasses
import json
import math

import numpy as np
import pytest

from memr1_jax.data.locomo import load_conversations, split
from memr1_jax.data.tuples import turn_of
from memr1_jax.errors import UserError
from memr1_jax.models.small_model import write_small_model
from memr1_jax.options import flag_values
from memr1_jax.studies import ablation_cells
from memr1_jax.studies.ablation_cells import (
    LENGTHS,
    SIGNALS_FILE,
    TABLES,
    AblationsConfig,
    Cell,
    Row,
    cells_of,
    dialogue_counts,
    experiment_of,
    plan,
)
from memr1_jax.studies.ablation_tables import SHAPES, draw, write_report
from memr1_jax.studies.ablations import ablate
from memr1_jax.studies.nano import NANO, tokenizer_texts
from memr1_jax.studies.runner import nano_options, write_dialogues
from memr1_jax.training import experiment
from memr1_jax.training.checks import check_options
from memr1_jax.training.config import ExperimentConfig

OPTIONS = AblationsConfig(tables=",".join(TABLES))
PLAN = plan(OPTIONS)
# Half the width of the 95 percent interval of the mean of 10, 20, 30: ten times the tabulated t of
# two degrees of freedom over the root of three.
HALF = 10 * 4.302653 / math.sqrt(3)


def cell_at(table, *labels) -> Cell:
    (found,) = [row.cell for row in PLAN[table] if row.labels == labels]
    return found


def differing(first: Cell, second: Cell) -> set[str]:
    """Returns the settings that differ, and "answerer" where that does."""
    one, other = (flag_values(cell.settings) for cell in (first, second))
    names = {name for name in one if one[name] != other[name]}
    return names | ({"answerer"} if first.answerer != second.answerer else set())


def test_all_tables_are_planned_and_every_row_fits_its_table():
    assert list(PLAN) == list(TABLES) == list(SHAPES)
    assert set(TABLES) - set(AblationsConfig().tables.split(",")) == {"signals"}  # not the paper's
    for name, rows in PLAN.items():
        assert len({row.labels for row in rows}) == len(rows) > 1
        assert all(len(row.labels) == len(SHAPES[name].labels) for row in rows)


def test_a_cell_of_several_tables_is_run_once_and_after_what_it_starts_from():
    cells = cells_of(PLAN)
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names) == 40
    for cell in cells:
        assert cell.answerer is None or names.index(cell.answerer.name) < names.index(cell.name)
    answerer = cell_at("agents", "answer agent only")
    assert answerer is not None
    assert cell_at("reward", "exact match") == answerer
    assert cell_at("algorithms", "GRPO") == cell_at("agents", "both")
    assert cell_at("algorithms", "GRPO").answerer == answerer
    assert cell_at("window", "all turns") == cell_at("horizon", "32", "one step")
    assert cell_at("window", "no RL of the manager") == cell_at("horizon", "32", "none")


def test_a_table_alone_takes_what_its_cells_start_from():
    window = plan(dataclasses.replace(OPTIONS, tables="window"))
    assert [cell.name for cell in cells_of(window)] == [
        *("answer_grpo", "start_32", "window_24_32", "window_50_32", "one_step_32")
    ]


def test_rows_differ_in_what_their_table_is_about_alone():
    none, manager, answer, both = (row.cell for row in PLAN["agents"])
    assert differing(none, answer) == {"answer_steps"} and none.steps == 0
    assert differing(manager, both) == {"answerer"} and both.answerer == answer
    exact = cell_at("reward", "exact match")
    for text in ("token F1", "contains the gold answer"):
        assert differing(exact, cell_at("reward", text)) == {"reward"}
    grpo = cell_at("algorithms", "GRPO")
    for text in ("PPO", "best of n"):
        other = cell_at("algorithms", text)
        assert differing(grpo, other) == {"algorithm", "answerer"}
        assert differing(grpo.answerer, other.answerer) == {"algorithm"}
    taught = cell_at("algorithms", "SFT on right demonstrations")
    assert (taught.settings.corrupt, taught.answerer.settings.verbose) == (0.0, 0.0)
    windows = [cell_at("window", text) for text in ("24 turns", "50 turns", "all turns")]
    assert [cell.settings.window for cell in windows] == [24, 50, 0]
    assert differing(windows[0], windows[1]) == differing(windows[1], windows[2]) == {"window"}


def test_each_signal_is_taken_away_from_the_whole_recipe():
    none, start, papers, whole, *parts = (row.cell for row in PLAN["signals"])
    assert none == cell_at("agents", "none") and start.steps == 0
    given = ExperimentConfig.from_flags(SIGNALS_FILE)
    recipe = differing(papers, whole)
    assert all(flag_values(whole.settings)[name] == flag_values(given)[name] for name in recipe)
    changed = [differing(whole, part) for part in parts]
    assert set().union(*changed) == recipe and all(changed)
    assert all(not cell.settings.policy.stratified for cell in (papers, parts[4]))
    for cell in (papers, whole, *parts):
        check_options(dataclasses.replace(cell.settings, output="x", data_path="x"))


def test_both_forms_of_answers_get_the_same_lesson_and_the_same_rl():
    with_memories, trained, alone, trained_alone = (row.cell for row in PLAN["distillation"])
    assert differing(with_memories, alone) == {"answer_prompt"}
    assert differing(trained, trained_alone) == {"answer_prompt", "answerer"}
    assert (trained.answerer, trained_alone.answerer) == (with_memories, alone)
    assert with_memories.settings.verbose == alone.settings.verbose == 0.55
    assert with_memories.steps == alone.steps == OPTIONS.sft_steps


def test_all_horizons_sample_as_many_responses_in_as_many_updates():
    for facts in LENGTHS:
        cells = [cell_at("horizon", str(facts), s) for s in ("one step", "terminal", "branches")]
        # A step: 32 turns of dialogue, 4 responses to each.
        assert [cell.sampled for cell in cells] == [12 * 32 * 4] * 3
        assert {cell.steps for cell in cells} == {12}
        one_step, terminal, branches = (cell.settings for cell in cells)
        assert (one_step.batch, one_step.policy.group) == (32, 4)
        for settings in (terminal, branches):
            assert settings.batch * settings.horizon.episode_turns == 32
            assert settings.horizon.episode_turns == facts <= settings.bank_capacity
            check_options(settings)
        assert differing(*cells[1:]) == {"horizon"}


def test_what_an_experiment_samples_is_what_is_counted():
    assert Cell("a", nano_options(agent="answer", answer_steps=3, batch=5, group=2)).sampled == 30
    assert Cell("s", nano_options(algorithm="sft", agent="answer")).sampled == 0
    settings = nano_options(
        **{"agent": "manager", "manager_steps": 3, "batch": 5, "group": 2},
        **{"horizon": "terminal", "episode_turns": 4},
    )
    assert Cell("t", settings).sampled == 120


def test_dialogues_of_every_length_have_the_turns_that_they_are_named_after(tmp_path):
    options = AblationsConfig(dialogues=6, test_dialogues=3)
    turns = []
    for facts in (12, *LENGTHS):
        path = tmp_path / f"{facts}.json"
        write_dialogues(path, 7, **dialogue_counts(options, facts))
        dialogues = load_conversations(path)
        for dialogue in dialogues:
            assert len({turn_of(dialogue, fact) for fact in dialogue.facts}) == facts
        turns.append(len(split(dialogues, "train")) * facts)
    assert turns == [72, 72, 64, 64]  # 6 of 12, 9 of 8, 4.5 of 16, 2.25 of 32 turns


def test_a_run_begins_with_the_answer_agent_of_its_own_seed(tmp_path):
    both = experiment_of(cell_at("agents", "both"), tmp_path, 9)
    assert both.answer_model == str(tmp_path / "answer_grpo_9/export/answer")
    assert (both.seed, both.output) == (9, str(tmp_path / "manager_grpo_9"))
    assert both.data_path == str(tmp_path / "dialogues_12.json")
    long = experiment_of(cell_at("horizon", "16", "branches"), tmp_path, 9)
    assert long.data_path == str(tmp_path / "dialogues_16.json")
    assert experiment_of(cell_at("agents", "manager only"), tmp_path, 9).answer_model == ""


def test_the_judge_is_run_where_there_is_one():
    assert cell_at("reward", "judge") is None
    judged = plan(dataclasses.replace(OPTIONS, judge_model="somewhere"))["reward"][-1].cell
    assert differing(cell_at("reward", "exact match"), judged) == {"reward", "judge_model"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tables": "agents,latency"}, "there is no 'latency'"),
        ({"tables": ""}, "there is no ''"),
        ({"seeds": 0}, "--seeds=0 must be at least 1"),
        ({"horizon_steps": 0}, "--horizon_steps=0 must be at least 1"),
    ],
)
def test_what_makes_no_table_is_refused(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        ablate(AblationsConfig(output=str(tmp_path / "none"), **changes))
    assert not (tmp_path / "none").exists()


def test_a_folder_of_other_settings_is_refused(tmp_path):
    (tmp_path / "options.json").write_text(json.dumps({"answer_steps": 41, "seeds": 5}))
    options = AblationsConfig(output=str(tmp_path))
    with pytest.raises(UserError, match=r"--answer_steps=30 \(was 41\)"):
        ablate(options)


def run(cell, share, *, seconds=(0.5,), reward=0.25):
    """Returns results of one seed in which every share is the same."""
    measured = {
        **dict.fromkeys(("answer", "manager", "operations", "dialogue"), share),
        **dict.fromkeys(("dialogue_f1", "answer_f1"), share / 2),
        **{"answer_words": 10 * share, "gold_words": 1.5, "response_tokens": 20 * share},
        "health": {
            **{"facts": 50, "memories": 40, "missing": 100 * share, "stale": 5},
            **{"duplicates": 1, "unlike": 2, "wrong_deletes": 0, "invalid": 0},
        },
        **{"questions": 60, "turns": 70, "by_event": {"ADD": share}},
    }
    steps = [{"reward": reward, "seconds": value} for value in seconds]
    return {"steps": {cell.settings.agent: steps}, "measured": measured}


def test_the_report_holds_what_the_tables_say(tmp_path, capsys):
    tables = plan(dataclasses.replace(OPTIONS, tables="reward,horizon"))
    runs = {
        cell.name: [run(cell, share) for share in ((0.1, 0.2, 0.3) if cell.varies else (0.1,))]
        for cell in cells_of(tables)
    }
    found = write_report(tmp_path, {"seeds": 3}, tables, runs)
    assert json.loads((tmp_path / "results.json").read_text()) == found
    text = (tmp_path / "results.md").read_text()
    shares, half = f"20.0 ± {HALF:.1f}", f"10.0 ± {HALF / 2:.1f}"
    words, tokens = f"2.00 ± {HALF / 10:.2f}", f"4.00 ± {HALF / 5:.2f}"
    assert "| none (no RL) | 10.0 | 5.0 | 1.00 | 1.50 | 2.00 | 10.0 | 5.0 |\n" in text
    assert (
        f"| token F1 | {shares} | {half} | {words} | 1.50 | {tokens} | {shares} | {half} |\n"
    ) in text
    assert "| judge | not run | not run | not run | not run | not run | not run | not run |" in text
    # Missing: 10, 20, 30 of 50 facts are 20, 40, 60 of 100. Stale: 5 of 50.
    assert (
        f"| 8 | branches | {shares} | {shares} | {shares} | 40.0 ± {2 * HALF:.1f} | 10.0 ± 0.0 |"
        " 2.0 ± 0.0 | 0.0 ± 0.0 | 60 | 1,536 | 0.50 |\n"
    ) in text
    assert "| 8 | none |" in text and "| 60 | 0 | 0.50 |" in text
    assert shares in capsys.readouterr().out
    row = found["tables"]["horizon"][3]
    assert (row["labels"], row["cell"]) == (["8", "branches"], "branches_8")
    exact = row["figures"]["whole dialogues, exact match"]
    assert exact["mean"] == pytest.approx(20) and exact["half_width"] == pytest.approx(HALF)
    cell = found["cells"]["branches_8"]
    assert cell["runs"][1]["measured"]["answer"] == 0.2 and cell["runs"][1]["rewards"] == [0.25]
    assert (cell["answerer"], cell["sampled"]) == ("answer_grpo", 1536)
    for name in tables:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_responses_of_both_agents_count_and_the_median_step(tmp_path):
    tables = plan(dataclasses.replace(OPTIONS, tables="algorithms"))
    runs = {c.name: [run(c, 0.1, seconds=(9.0, 1.0, 2.0))] for c in cells_of(tables)}
    found = write_report(tmp_path, {}, tables, runs)
    sampled = [row["figures"]["responses sampled"]["mean"] for row in found["tables"]["algorithms"]]
    assert sampled == [0, 0, *[30 * 16 * 8 + 20 * 16 * 8] * 3]
    assert found["cells"]["manager_ppo"]["runs"][0]["seconds_per_step"] == 2.0


@pytest.mark.parametrize("name", ["agents", "horizon"])
def test_other_figures_are_another_picture(name):
    rows = PLAN[name]
    cells = cells_of({name: rows})
    flat = {cell.name: [run(cell, 0.5), run(cell, 0.5)] for cell in cells}
    assert draw(SHAPES[name], rows, flat) == draw(SHAPES[name], rows, flat)
    last = rows[-1].cell
    spread = flat | {last.name: [run(last, 0.4), run(last, 0.6)]}  # the mean stays
    assert draw(SHAPES[name], rows, spread) != draw(SHAPES[name], rows, flat)


@pytest.mark.slow
def test_a_second_call_repeats_nothing(tmp_path, monkeypatch):
    shape = dataclasses.replace(NANO, num_layers=1, model_width=32, head_size=8, mlp_width=32)
    model = write_small_model(tmp_path / "model", tokenizer_texts(), shape)
    options = AblationsConfig(
        **{"model": str(model), "output": str(tmp_path / "ablations"), "tables": "horizon"},
        **{"seeds": 1, "answer_steps": 2, "horizon_steps": 2, "horizon_group": 2},
        **{"batch": 2, "group": 2, "dialogues": 3, "test_dialogues": 2, "seed": 7},
    )

    def two_rows(options) -> list[Row]:
        rows = TABLES["horizon"](options)
        return [row for row in rows if row.labels in (("8", "none"), ("8", "branches"))]

    monkeypatch.setattr(ablation_cells, "TABLES", {**TABLES, "horizon": two_rows})
    begun = []

    class Noted(experiment.Experiment):
        def __init__(self, options):
            begun.append((options.agent, options.horizon.scheme, options.seed))
            super().__init__(options)

    monkeypatch.setattr(experiment, "Experiment", Noted)
    first = ablate(options)
    wanted = [("answer", "one_step"), ("manager", "one_step"), ("manager", "branches")]
    assert begun == [(*one, 7) for one in wanted]
    runs = {name: cell["runs"][0] for name, cell in first["cells"].items()}
    rewards = {name: np.shape(found["rewards"]) for name, found in runs.items()}
    assert rewards == {"answer_grpo": (2,), "start_8": (0,), "branches_8": (2,)}
    for found in runs.values():
        measured = found["measured"]
        assert measured["questions"] > 0 and measured["gold_words"] >= 1
        assert measured["answer_words"] >= 0 and measured["response_tokens"] >= 1
    # The Answer Agent is that of the first run, on banks of its own kind of dialogue.
    assert runs["start_8"]["measured"]["answer"] == runs["branches_8"]["measured"]["answer"]

    begun.clear()
    assert ablate(options) == first and begun == []
    more = ablate(dataclasses.replace(options, seeds=2))
    assert begun == [(*one, 8) for one in wanted]
    assert more["cells"]["branches_8"]["runs"][0] == runs["branches_8"]
    with pytest.raises(UserError, match="--group"):
        ablate(dataclasses.replace(options, group=4))
