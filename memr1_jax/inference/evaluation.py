"""The evaluation of a pair of models as a job of its own."""

from pathlib import Path

from memr1_jax.agents.agent_pair import build_agent_pair, load_models
from memr1_jax.agents.told_facts import with_told_facts
from memr1_jax.data.dialogues import load_dialogues
from memr1_jax.data.types import Conversation
from memr1_jax.evals.evaluator import Evaluation, Evaluator
from memr1_jax.evals.metrics import results_table
from memr1_jax.evals.report.replay import write_replay
from memr1_jax.evals.report.report import write_evaluation
from memr1_jax.evals.report.report_page import write_report_page
from memr1_jax.training.checks import check_options
from memr1_jax.training.config import EvaluationConfig, settled
from memr1_jax.training.identity import open_run
from memr1_jax.training.training_data import check_evaluated


def evaluate(options: EvaluationConfig) -> Evaluation:
    """Evaluates `options.model` and `options.answer_model` on `options.eval_split`.

    Writes scores and predictions to `options.output` and prints the table. The word statistics of
    the embedder come from the training conversations, as in training. The same evaluation may be
    made again in its folder; another one is refused there.
    """
    from rich.console import Console

    options = settled(options)
    check_options(options)
    loaded: list[list[Conversation]] = []

    def load(folder: Path) -> None:
        loaded[:] = load_dialogues(options, options.seed, folder, learn=False)
        check_evaluated(options, loaded[1])

    with open_run(options, "evaluation", resume=True, check=load) as opened:
        evaluation = _evaluate(options, opened.path, *loaded)
    console = Console()
    if not console.is_terminal:
        console.width = 140  # a file has no width; 80 columns would break the table's words
    console.print(results_table(evaluation.summary))
    console.print(
        "The manager: " + ", ".join(f"{k} {v:g}" for k, v in evaluation.ingestion.items())
    )
    console.print(f"Everything is in {opened.path}")
    return evaluation


def _evaluate(
    options: EvaluationConfig,
    folder: Path,
    train: list[Conversation],
    dialogues: list[Conversation],
) -> Evaluation:
    models = load_models(options)
    pair = build_agent_pair(options, models, train)
    dialogues = with_told_facts(
        options, options.extraction, pair, models, dialogues, "for evaluation"
    )
    evaluator = Evaluator(options, pair, models)
    params = models.manager.params, models.answerer.params
    evaluation, replayed = evaluator.measure(*params, dialogues, f"{options.eval_split} split")
    write_replay(folder, options.eval_split, replayed)
    write_evaluation(folder, options.eval_split, evaluation, options.eval_split)
    write_report_page(folder)
    return evaluation
