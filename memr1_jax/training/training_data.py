"""The data that an agent learns from, checked before any model is loaded, then made into arrays."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memr1_jax.agents.agent_pair import AgentPair, Models
from memr1_jax.agents.demonstrations import (
    Demonstrations,
    WithDemonstrations,
    answer_demonstrations,
    check_demonstrable,
    manager_demonstrations,
)
from memr1_jax.agents.extractor_lessons import extractor_demonstrations
from memr1_jax.agents.extractor_rollout import RewardedTurnsData, encode_rewarded_turns
from memr1_jax.agents.ingest import Ingestion
from memr1_jax.agents.outcomes import FRESH
from memr1_jax.agents.told_facts import extractor_of
from memr1_jax.data.augment import alter_banks
from memr1_jax.data.batches import AnswerData, EpisodeData, ManagerData
from memr1_jax.data.curriculum import parse_curriculum, stage_at
from memr1_jax.data.dialogues import DataConfig
from memr1_jax.data.encode import (
    encode_answer_data,
    encode_final_banks,
    encode_manager_data,
    left_out,
)
from memr1_jax.data.episodes import encode_episodes, episodes, left_out_of_episodes
from memr1_jax.data.mixtures import Part, mixture_parts, parse_mixture
from memr1_jax.data.pressure import with_pressure
from memr1_jax.data.tuples import facts_of_turn, linked_questions, manager_tuples
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.options import with_options
from memr1_jax.parallel.distributed import is_main
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.validation import validation_dialogues


def training_banks(options: ExperimentConfig) -> str:
    """Returns what fills the banks that the Answer Agent learns on."""
    if options.training_banks:
        return options.training_banks
    # A demonstration shows what a right answer rests on.
    return "add_all" if options.algorithm == "sft" else options.bank_builder


def check_dialogues(
    options: ExperimentConfig,
    learned: Sequence[Conversation],
    evaluated: Sequence[Conversation],
    folder: Path,
    held_out: Sequence[Conversation] = (),
) -> None:
    """Checks the conversations to learn from, to evaluate on, and held out to validate on.

    Raises:
      UserError: nothing can be learned from them, or nothing can be evaluated.
    """
    where, validated = _where(options), []
    if options.evaluate:
        check_evaluated(options, evaluated)
    if options.select == "validation":
        validated = validation_dialogues(options, folder, evaluated, held_out)
    if options.agent in ("manager", "both"):
        _check_manager(options, learned, where)
    if options.agent == "extractor" and options.algorithm != "sft":
        _check_questions(options, learned, where)
    if options.agent in ("answer", "both"):
        _check_questions(options, learned, where)
        if training_banks(options) == "gold":
            check_gold([*learned, *validated])


def check_evaluated(options: DataConfig, evaluated: Sequence[Conversation]) -> None:
    """Raises UserError where the conversations to evaluate on ask nothing."""
    if not any(conversation.questions for conversation in evaluated):
        raise UserError(
            f"{_where(options)}: the conversations of --eval_split={options.eval_split} ask no"
            ' question, so there is nothing to evaluate on. Add "questions", or name another split.'
        )


def _where(options: DataConfig) -> str:
    return options.data_path or f"--data={options.data}"


def _check_manager(options: ExperimentConfig, learned: Sequence[Conversation], where: str) -> None:
    if options.algorithm == "sft" or options.policy.demonstration_weight:
        check_demonstrable(learned)
    if options.algorithm == "sft":
        return
    _check_questions(options, learned, where)
    if not any(q.evidence and not q.abstain for c in learned for q in c.questions):
        raise UserError(
            f"{where}: no question of --train_split={options.train_split} names the turns that hold"
            ' its answer, from which the Memory Manager learns. Add "evidence" to the questions, or'
            " train the Answer Agent alone with --agent=answer."
        )
    if options.reward.weight_of(FRESH) and not any(c.operations for c in learned):
        raise UserError(
            f"{where}: these dialogues do not say which memories are outdated, for which"
            f" --reward={options.reward.outcome} looks. Use --data=synthetic, or leave {FRESH} out."
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


def manager_data(
    options: ExperimentConfig, pair: AgentPair, models: Models, dialogues: list[Conversation]
) -> ManagerData | EpisodeData | Demonstrations:
    """Encodes the turns that the manager learns from; says what the fixed sizes leave out."""
    if options.algorithm == "sft":
        shown, counts = manager_demonstrations(
            pair.manager,
            pair.tools,
            pair.encoder,
            models.manager.tokenizer,
            dialogues,
            window=options.window or None,
            corrupt=options.corrupt,
            seed=options.seed,
            augment=options.augment,
        )
        _say(f"{shown.rows} demonstrations; not as they should be", _plain(counts))
        return shown
    if options.horizon.episodic:
        return _episode_data(options, pair, dialogues)
    tuples = [
        alter_banks(item, dialogue, options.augment, options.seed)
        for dialogue in dialogues
        for item in manager_tuples(dialogue, options.window or None, options.link)
    ]
    if options.presses:
        window = options.window or None
        tuples = with_pressure(options, pair.encoder, dialogues, tuples, window, options.link)
    missing = _without_facts(options, dialogues)
    missing |= left_out(pair.encoder, tuples, [item.banks for item in tuples])
    _say(f"{len(tuples)} turns; left out", missing)
    return encode_manager_data(pair.encoder, dialogues, tuples)


def _without_facts(options, dialogues):
    """Counts turns that a question points to, but that would show the manager nothing."""
    silent = [
        questions
        for dialogue in dialogues
        for position, questions in linked_questions(dialogue, options.link).items()
        if not facts_of_turn(dialogue, position)
    ]
    return {
        "turns without a noted fact": len(silent),
        "questions that belong to these": sum(map(len, silent)),
    }


def _episode_data(options, pair, dialogues):
    turns, questions = options.horizon.episode_turns, options.horizon.final_questions
    made = [
        episode
        for dialogue in dialogues
        for episode in episodes(
            dialogue, turns, options.facts_per_turn, options.horizon.episode_start, options.link
        )
    ]
    missing = left_out_of_episodes(pair.encoder, dialogues, made, questions)
    _say(f"{len(made)} episodes; left out", missing)
    return encode_episodes(pair.encoder, dialogues, made, turns, questions)


def answer_data(
    options: ExperimentConfig,
    pair: AgentPair,
    models: Models,
    dialogues: list[Conversation],
    banks: tuple[MemoryBank, MemoryBank],
) -> AnswerData | Demonstrations:
    """Encodes the questions that the Answer Agent learns from, and the banks it searches."""
    if options.algorithm != "sft":
        return encode_answer_data(pair.encoder, dialogues, banks)
    shown, counts = answer_demonstrations(
        pair.answerer,
        pair.tools,
        pair.encoder,
        models.answerer.tokenizer,
        dialogues,
        banks,
        verbose=options.verbose,
        seed=options.seed,
    )
    _say(f"{shown.rows} demonstrations; not as they should be", _plain(counts))
    return shown


def with_demonstrations(
    options: ExperimentConfig, data: AnswerData | ManagerData | EpisodeData, make: Callable
) -> AnswerData | ManagerData | EpisodeData | WithDemonstrations:
    """Joins data with demonstrations of the same dialogues, where these have a weight in the loss.

    `make(options)` makes the data that the options name.
    """
    if not options.policy.demonstration_weight or options.algorithm not in ("grpo", "ppo"):
        return data
    return WithDemonstrations(data, make(with_options(options, algorithm="sft")))


def parts_by_step(
    options: DataConfig, dialogues: Sequence[Conversation], data: Any
) -> Callable[[int], tuple[Part, ...]]:
    """Returns the parts that the batch of a step is drawn from; () for all rows in one.

    Takes and raises what `mixture_of` does. With a curriculum they change with its stages.
    """
    stages = parse_curriculum(options.curriculum)
    if not stages:
        parts = mixture_of(options, dialogues, data)
        return lambda step: parts
    of_stage = {
        stage: mixture_of(options, dialogues, data, sessions=stage.sessions) for stage in stages
    }
    return lambda step: of_stage[stage_at(stages, step)]


def mixture_of(
    options: DataConfig,
    dialogues: Sequence[Conversation],
    data: ManagerData | AnswerData | EpisodeData | Demonstrations | WithDemonstrations,
    sessions: int = 0,
) -> tuple[Part, ...]:
    """Divides an agent's rows among the data sets of a mixture, and says how; () for one data set.

    `dialogues` are those that the data were made of. With `sessions` the rows are those of one
    stage of a curriculum.

    Raises:
      UserError: no data set with a weight has rows for the agent.
    """
    weights = parse_mixture(options.data)
    if len(weights) == 1 and not sessions:
        return ()
    whose = [dialogues[index] for index in np.asarray(data.conversation)]
    (only, *_) = weights
    sources = [dialogue.source or only for dialogue in whose]
    of_stage = np.array([dialogue.sessions_read == sessions for dialogue in whose])
    parts = mixture_parts(weights, sources, of_stage)
    if is_main():
        if sessions:
            print(f"Of the first {sessions} sessions: ", end="")
        shares = ", ".join(f"{p.share:.0%} {p.name} ({len(p.rows)} rows)" for p in parts)
        print(f"A batch holds {shares}.")
        if absent := weights.keys() - {part.name for part in parts}:
            print(f"It holds nothing of {', '.join(sorted(absent))}.")
    return parts


def extractor_data(
    options: ExperimentConfig, pair: AgentPair, models: Models, dialogues: list[Conversation]
) -> Demonstrations | RewardedTurnsData:
    """Encodes the turns that the fact extractor learns from.

    They have the facts noted for them as demonstrations, or are those that questions are linked to,
    whether or not a fact is noted.
    """
    if options.algorithm != "sft":
        sizes = options.window or None, options.link, options.extraction.turn_width
        return encode_rewarded_turns(pair.encoder, dialogues, *sizes)
    shown, counts = extractor_demonstrations(
        extractor_of(options, options.extraction, models.manager),
        pair.encoder,
        models.manager.tokenizer,
        dialogues,
        seed=options.seed,
    )
    _say(f"{shown.rows} demonstrations; not as they should be", _plain(counts))
    return shown


def gold_banks(pair: AgentPair, dialogues: list[Conversation]) -> Ingestion:
    """Fills banks by the gold operations of generated dialogues.

    Raises:
      UserError: a dialogue has none.
    """
    check_gold(dialogues)
    return Ingestion(encode_final_banks(pair.encoder, dialogues), {})


def check_gold(dialogues: list[Conversation]) -> None:
    """Raises UserError where a dialogue has no gold operations to fill banks with."""
    if any(not dialogue.operations for dialogue in dialogues):
        raise UserError(
            "These dialogues do not say which memory operations are right. Use --data=synthetic,"
            " or another value of --training_banks."
        )


def _say(what, counts):
    """Prints what was left out or changed, if anything was."""
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if found and is_main():
        print(f"Of the training data: {what}: {found}.")


def _plain(counts):
    """Replaces names by plain words, with their counts."""
    return {name.replace("_", " "): count for name, count in counts.items()}
