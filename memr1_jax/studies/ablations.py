"""The paper's ablations on the nano model (Memory-R1, section 4 and its appendices).

`ablation_cells` says what each table compares, `ablation_tables` what it shows.
"""

import dataclasses
from typing import Any

from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.studies.ablation_cells import (
    AblationsConfig,
    cells_of,
    dialogue_counts,
    dialogues_file,
    experiment_of,
    plan,
)
from memr1_jax.studies.ablation_tables import write_report
from memr1_jax.studies.runner import held_out, open_folder, run_study, write_dialogues

# Options that another call with the same folder may change: they add runs, and change none.
_FREE = ("tables", "seeds", "judge_model")


def ablate(options: AblationsConfig) -> dict[str, Any]:
    """Runs the cells of the chosen tables with every seed, measures and reports.

    Runs that an earlier call finished in the folder are not repeated; more tables and seeds may be
    asked for. The folder then holds the dialogues, a run folder `<cell>_<seed>/` each with its
    `measured.json`, and `results.json`, `results.md` and a picture of each table.

    Returns:
      What `results.json` holds.

    Raises:
      UserError: an option makes no sense, or the folder was begun with other settings.
      Preempted: a run was asked to stop; its state is saved.
    """
    tables = plan(options)
    cells = cells_of(tables)
    _check_judge(options)
    opened = open_folder(options, "ablations", _FREE)
    folder = opened.path
    for facts in sorted({cell.facts for cell in cells}):
        counts = dialogue_counts(options, facts)
        path = folder / dialogues_file(facts)
        write_dialogues(path, options.seed, again=not opened.begun, **counts)
    wanted = [
        (cell.name, experiment_of(cell, folder, seed))
        for seed in range(options.seed, options.seed + options.seeds)
        for cell in cells
        if cell.varies or seed == options.seed
    ]
    runs = run_study(wanted, _measure)
    return write_report(folder, dataclasses.asdict(options), tables, runs)


def _measure(experiment) -> dict[str, dict]:
    trained = experiment.params
    manager, answerer = trained["manager"], trained["answer"]
    measured = held_out(experiment).measure(manager, answerer, answerer)
    return {"measured": dataclasses.asdict(measured)}


def _check_judge(options: AblationsConfig) -> None:
    """Refuses a judge that cannot read the answers now, not after an hour of other runs."""
    from memr1_jax.agents.agent_pair import check_same_tokens
    from memr1_jax.models.hf.tokenizer import load_tokenizer

    if options.judge_model:
        names = (options.judge_model, options.model)
        judge, model = (load_tokenizer(resolve_model(name)) for name in names)
        check_same_tokens(judge, model, "judge_model", options)
