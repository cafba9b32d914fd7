"""A run on a mixture of data with everything that widens it, interrupted and resumed."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny_model import DEMONSTRATED, options

from memr1_jax.data.synthetic import generate
from memr1_jax.models.hf.hf_weights import load_params
from memr1_jax.run.metrics_log import read_metrics, records_of
from memr1_jax.training.experiment import Experiment


def _dialogues(tmp_path):
    """Writes a file in LoCoMo's format of dialogues that note facts but no operations."""
    records = [*generate(7, 1, 3, 3), *generate(7, 1, 2, 3, split="validation")]
    for record in records:
        del record["gold_operations"]
    path = tmp_path / "locomo.json"
    path.write_text(json.dumps(records))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["answer", "manager"])
def test_an_interrupted_run_on_a_mixture_is_the_uninterrupted_one(agent, tmp_path, capsys):
    given = options(
        data="locomo:2,synthetic:1",
        data_path=str(_dialogues(tmp_path)),
        agent=agent,
        augment=1,
        curriculum="2:1,3",
        synthetic_wordings=0.5,
        demonstration_weight=0.1,
        **DEMONSTRATED,
        bank_builder="add_all",
        select="validation",
        validation_folds=4,
        validation_generated=1,
        validation_rows=4,
        patience=9,
        kl_weight=0.0,
        evaluate=False,
    )

    def run(folder, steps, resume=False):
        output, count = str(tmp_path / folder), {f"{agent}_steps": steps}
        Experiment(dataclasses.replace(given, output=output, resume=resume, **count)).run()
        metrics = read_metrics(tmp_path / folder / "metrics.jsonl")
        return records_of(metrics, agent, "train"), load_params(
            tmp_path / folder / "export" / agent
        )[0]

    whole, params = run("whole", 2)
    said = capsys.readouterr().out
    assert "Of the first 2 sessions: A batch holds 67% locomo" in said
    assert "Of the first 3 sessions: A batch holds 67% locomo" in said
    assert all(record["demonstration_nll"] > 1 for record in whole)
    run("parts", 1)
    parts, again = run("parts", 2, resume=True)
    clocks = ("seconds", "tokens_per_second")
    assert [{k: v for k, v in r.items() if k not in clocks} for r in parts] == [
        {k: v for k, v in r.items() if k not in clocks} for r in whole
    ]
    jax.tree.map(np.testing.assert_array_equal, params, again)
