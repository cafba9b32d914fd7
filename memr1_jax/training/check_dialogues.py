"""Checks what a run needs of its dialogues, before any model is loaded or any bank is built."""

from collections.abc import Sequence
from pathlib import Path

from memr1_jax.agents.demonstrations import check_demonstrable
from memr1_jax.data.episodes import episodes
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.training.assembly import check_gold
from memr1_jax.training.config import DataConfig, ExperimentConfig
from memr1_jax.training.validation import validation_dialogues


def training_banks(options: ExperimentConfig) -> str:
    """Return what fills the banks that the Answer Agent learns on."""
    if options.training_banks:
        return options.training_banks
    # A demonstration shows what a right answer rests on.
    return "add_all" if options.algorithm == "sft" else options.bank_builder


def check_dialogues(
    options: ExperimentConfig,
    learned: Sequence[Conversation],
    evaluated: Sequence[Conversation],
    folder: Path,
) -> None:
    """Check the conversations to learn from and to evaluate on.

    Raises:
      UserError: nothing can be learned from them, or nothing can be evaluated.
    """
    where, held_out = _where(options), []
    if options.evaluate:
        check_evaluated(options, evaluated)
    if options.select == "validation":
        held_out = validation_dialogues(options, folder, list(evaluated))
    if options.agent != "answer":
        _check_manager(options, learned, where)
    if options.agent != "manager":
        _check_questions(options, learned, where)
        if training_banks(options) == "gold":
            check_gold([*learned, *held_out])


def check_evaluated(options: DataConfig, evaluated: Sequence[Conversation]) -> None:
    """Raise UserError where the conversations to evaluate on ask nothing."""
    if not any(conversation.questions for conversation in evaluated):
        raise UserError(
            f"{_where(options)}: the conversations of --eval_split={options.eval_split} ask no"
            ' question, so there is nothing to evaluate on. Add "questions", or name another split.'
        )


def _where(options: DataConfig) -> str:
    return options.data_path or f"--data={options.data}"


def _check_manager(options: ExperimentConfig, learned: Sequence[Conversation], where: str) -> None:
    if options.algorithm == "sft":
        check_demonstrable(learned)
        return
    _check_questions(options, learned, where)
    if not any(q.evidence and not q.abstain for c in learned for q in c.questions):
        raise UserError(
            f"{where}: no question of --train_split={options.train_split} names the turns that hold"
            ' its answer, from which the Memory Manager learns. Add "evidence" to the questions, or'
            " train the Answer Agent alone with --agent=answer."
        )
    if not options.horizon.episodic:
        return
    sizes = options.horizon.episode_turns, options.facts_per_turn
    if not any(episodes(c, *sizes, options.horizon.episode_start, options.link) for c in learned):
        raise UserError(
            f"{where}: no question of --train_split={options.train_split} can be answered from the"
            " facts of one episode. Raise --episode_turns, or give --horizon=one_step."
        )


def _check_questions(
    options: ExperimentConfig, learned: Sequence[Conversation], where: str
) -> None:
    questions = [question for c in learned for question in c.questions]
    abstentions = sum(question.abstain for question in questions)
    if len(questions) > abstentions:
        return
    what = "ask no question"
    if abstentions:
        what = f"ask only questions that the dialogue does not answer ({abstentions} abstentions)"
    raise UserError(
        f"{where}: the conversations of --train_split={options.train_split} {what}, so there is"
        ' nothing to learn from. Add "questions" with answers, or choose another split.'
    )
