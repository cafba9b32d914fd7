"""Checks the comparison of RL, its report, and that a second call repeats nothing."""

import dataclasses
import inspect
import json

import numpy as np
import pytest

from memr1_jax.data.synthetic import generate, write_synthetic
from memr1_jax.data.wordings import WordingOptions
from memr1_jax.errors import UserError
from memr1_jax.models.small_model import write_small_model
from memr1_jax.options import flag_values
from memr1_jax.studies import learning
from memr1_jax.studies.learning import (
    LearningConfig,
    draw,
    fifths,
    learn,
    run_options,
    write_report,
)
from memr1_jax.studies.nano import NANO, NANO_DIALOGUES, tokenizer_texts
from memr1_jax.studies.runner import dialogues_of_flags
from memr1_jax.training import experiment
from memr1_jax.training.config import ExperimentConfig

# Half the width of the 95 percent interval of the mean of 1, 2, 3: the tabulated t of two degrees
# of freedom over the root of three.
HALF = 4.302653 / 3**0.5


def run(rewards, start, end):
    """Returns results of one seed; the abilities of start and end are one number each."""

    def measured(share):
        return {
            **dict.fromkeys(("answer", "manager", "operations", "dialogue"), share),
            "by_event": {"ADD": share},
            "health": dict.fromkeys(
                (
                    *("facts", "memories", "missing", "stale", "duplicates"),
                    *("unlike", "wrong_deletes", "invalid"),
                ),
                10 * share,
            ),
            "questions": 5,
            "turns": 6,
        }

    steps = [{"reward": reward, "seconds": 0.5} for reward in rewards]
    return {
        "steps": {"answer": steps, "manager": steps},
        "start": measured(start),
        "end": measured(end),
    }


def test_first_and_last_fifth_of_the_steps():
    first, last = fifths(np.stack([np.arange(10.0), np.arange(10.0) * 2.0]))
    np.testing.assert_allclose(first, [0.5, 1.0])
    np.testing.assert_allclose(last, [8.5, 17.0])


def test_the_report_holds_what_the_tables_say(tmp_path, capsys):
    runs = {
        "grpo": [run([0.0] * 4 + [reward], 0.1, reward / 10) for reward in (1.0, 2.0, 3.0)],
        "ppo": [run([0.0, 0.2, 0.2, 0.2, 0.5], 0.1, 0.4)] * 3,
    }
    found = write_report(tmp_path, {"seeds": 3}, runs)
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert found["algorithms"]["ppo"]["answer"]["rewards"] == [[0.0, 0.2, 0.2, 0.2, 0.5]] * 3
    text = (tmp_path / "results.md").read_text()
    half = 10 * HALF
    assert (
        f"| Answer Agent, exact match | 10.0 ± 0.0 | 20.0 ± {half:.1f} | 10.0 ± {half:.1f} |"
        " 10.0 ± 0.0 | 40.0 ± 0.0 | 30.0 ± 0.0 |\n" in text
    )
    assert (
        f"| Answer Agent | GRPO | 0.000 ± 0.000 | 2.000 ± {HALF:.3f} | 2.000 ± {HALF:.3f} | 0.50 |"
        in text
    )
    assert "| memories at the end | 1.0 | 2.0 | 4.0 |" in text
    assert f"2.000 ± {HALF:.3f}" in capsys.readouterr().out
    assert (tmp_path / "reward.png").read_bytes().startswith(b"\x89PNG")


def test_an_agent_that_did_not_learn_has_no_row(tmp_path):
    one = run([1.0] * 5, 0.1, 0.2)
    one["steps"]["answer"] = []
    found = write_report(tmp_path, {}, {"grpo": [one]})
    assert "answer" not in found["algorithms"]["grpo"]
    text = (tmp_path / "results.md").read_text()
    assert "| Memory Manager | GRPO | 1.000" in text and "| Answer Agent | GRPO" not in text


def test_single_edits_that_were_not_measured_have_no_row(tmp_path):
    one = run([1.0] * 5, 0.1, 0.2)
    for when in ("start", "end"):
        one[when]["manager"] = None
    write_report(tmp_path, {}, {"grpo": [one]})
    text = (tmp_path / "results.md").read_text()
    assert "| Answer Agent, exact match |" in text and "Memory Manager, exact match" not in text


def test_the_curves_are_another_picture_for_other_rewards():
    def rewards(curve):
        return {agent: {"rewards": np.tile(curve, (3, 1))} for agent in ("answer", "manager")}

    flat, steep = rewards(np.full(20, 0.5)), rewards(np.linspace(0, 1, 20))
    assert draw({"grpo": flat, "ppo": flat}) != draw({"grpo": flat, "ppo": steep})


def test_the_runs_differ_in_algorithm_rates_folder_and_seed_alone(tmp_path):
    options = LearningConfig()
    grpo, ppo = (
        flag_values(run_options(options, tmp_path, name, seed))
        for name, seed in (("grpo", 0), ("ppo", 1))
    )
    differing = {name for name in grpo if grpo[name] != ppo[name]}
    allowed = {"algorithm", "learning_rate", "output", "seed"}
    assert {"algorithm", "output", "seed"} <= differing <= allowed
    assert (grpo["batch"], grpo["group"]) == (ppo["batch"], ppo["group"])


@pytest.mark.parametrize("name", ["seeds", "answer_steps", "manager_steps"])
def test_what_leaves_nothing_to_compare_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=rf"--{name}=0 must be at least 1"):
        learn(LearningConfig(output=str(tmp_path), **{name: 0}))


def test_an_unknown_algorithm_is_refused(tmp_path):
    with pytest.raises(UserError, match="--algorithms=grpo,dpo"):
        learn(LearningConfig(output=str(tmp_path), algorithms="grpo,dpo"))


def test_a_second_call_may_add_runs_and_steps_of_the_manager(tmp_path, monkeypatch):
    """Nothing is trained here; the folder alone decides what it takes."""
    asked = []
    monkeypatch.setattr(learning, "run_study", lambda runs, measure: asked.append(runs))
    monkeypatch.setattr(learning, "write_report", lambda folder, options, runs: {})
    options = LearningConfig(output=str(tmp_path), seeds=1, dialogues=1, test_dialogues=1)
    learn(options)
    learn(dataclasses.replace(options, seeds=2, algorithms="ppo", manager_steps=90))
    first, second = ([(n, run.seed, run.manager_steps) for n, run in runs] for runs in asked)
    assert first == [("grpo", 107, 40), ("ppo", 107, 40)]
    assert second == [("ppo", 107, 90), ("ppo", 108, 90)]
    for name, value in {"answer_steps": 90, "group": 4, "dialogues": 2}.items():
        with pytest.raises(UserError, match=f"--{name}={value} .was"):
            learn(dataclasses.replace(options, **{name: value}))
    assert len(asked) == 2


@pytest.mark.slow
def test_a_second_call_repeats_nothing(tmp_path, monkeypatch):
    shape = dataclasses.replace(NANO, num_layers=1, model_width=32, head_size=8, mlp_width=32)
    model = write_small_model(tmp_path / "model", tokenizer_texts(), shape)
    options = LearningConfig(
        model=str(model),
        output=str(tmp_path / "learning"),
        **{"seeds": 2, "answer_steps": 2, "manager_steps": 2, "batch": 2, "group": 2},
        **{"dialogues": 2, "test_dialogues": 2, "seed": 7},
    )
    begun = []

    class Noted(experiment.Experiment):
        def __init__(self, options):
            begun.append((options.algorithm, options.seed))
            super().__init__(options)

    monkeypatch.setattr(experiment, "Experiment", Noted)
    first = learn(options)
    assert begun == [("grpo", 7), ("grpo", 8), ("ppo", 7), ("ppo", 8)]
    for found in first["algorithms"].values():
        assert all(np.shape(found[agent]["rewards"]) == (2, 2) for agent in ("answer", "manager"))
        assert found["start"][0]["questions"] > 0 and 0 <= found["end"][1]["operations"] <= 1

    begun.clear()
    assert learn(options) == first
    assert begun == []

    # A longer comparison continues with the runs that there are.
    longer = learn(dataclasses.replace(options, manager_steps=3, algorithms="ppo"))
    assert begun == [("ppo", 7), ("ppo", 8)]
    (was, now) = (found["algorithms"]["ppo"] for found in (first, longer))
    assert was["answer"]["rewards"] == now["answer"]["rewards"]
    assert np.shape(now["manager"]["rewards"]) == (2, 3)
    assert [run[:2] for run in now["manager"]["rewards"]] == was["manager"]["rewards"]

    with pytest.raises(UserError, match="learning_rate"):
        learn(dataclasses.replace(options, grpo_learning_rate=0.5))


def test_dialogues_of_the_nano_model_say_when(tmp_path):
    write_synthetic(tmp_path / "d.json", 3, 4, 0, 0, **NANO_DIALOGUES)
    notes = [
        note
        for record in json.loads((tmp_path / "d.json").read_text())
        for session in record["observation"].values()
        for told in session.values()
        for note, _ in told
    ]
    assert notes and not any("yesterday" in note or "last year" in note for note in notes)


def test_a_flag_file_changes_every_run_but_for_what_the_study_sets(tmp_path):
    file = tmp_path / "recipe.flags"
    file.write_text("--reward=recall:1\n--group=4\n--model=else\n--data=synthetic\n--seed=3\n")
    plain, changed = (
        flag_values(run_options(LearningConfig(flags=flags), tmp_path, "grpo", 7))
        for flags in ("", str(file))
    )
    differing = {name: changed[name] for name in plain if plain[name] != changed[name]}
    assert differing == {"reward": "recall:1", "group": 4}


def test_a_flag_file_says_what_dialogues_are_like():
    given = {"synthetic_sessions": 3, "synthetic_train": 9, "synthetic_everyday": True, "batch": 2}
    assert dialogues_of_flags(given) == {"num_sessions": 3, "everyday": True}
    known = {flag: 0 for flag in flag_values(ExperimentConfig()) if flag.startswith("synthetic_")}
    assert dialogues_of_flags(known).keys() <= (
        inspect.signature(generate).parameters.keys()
        | {field.name for field in dataclasses.fields(WordingOptions)}
    )
