"""What one agent's train step is made of: its policy, the weights that stand still, its data.

The same for real runs and for ahead-of-time compilation, where weights are shapes.
"""

import jax
import jax.numpy as jnp

from memr1_jax.agents.consult import FrozenAnswerer
from memr1_jax.agents.demonstrations import (
    Demonstrations,
    answer_demonstrations,
    manager_demonstrations,
)
from memr1_jax.agents.ingest import Ingestion
from memr1_jax.data.batches import AnswerData, EpisodeData, ManagerData
from memr1_jax.data.encode import (
    encode_answer_data,
    encode_final_banks,
    encode_manager_data,
    left_out,
)
from memr1_jax.data.episodes import encode_episodes, episodes, left_out_of_episodes
from memr1_jax.data.tuples import facts_of_turn, linked_questions, manager_tuples
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.models.lora import LoRA, init_adapters, join, parse_targets
from memr1_jax.parallel.distributed import is_main
from memr1_jax.run.streams import run_key
from memr1_jax.training.config import ExperimentConfig, LoRAConfig
from memr1_jax.training.loading import Model, Models
from memr1_jax.training.step import Frozen, Policy
from memr1_jax.training.workbench import Workbench


def lora_of(options: LoRAConfig) -> LoRA | None:
    """The adapters that are trained, None for full fine-tuning."""
    if not options.lora_rank:
        return None
    return LoRA(options.lora_rank, options.lora_alpha, parse_targets(options.lora_targets))


def untrained(options: LoRAConfig, model: Model) -> dict:
    """An agent as it is before training, in the form of `Frozen`: no adapters, or the network."""
    return {} if options.lora_rank else model.params


def network(options: LoRAConfig, model: Model, params: dict) -> dict:
    """All parameters of an agent from what is trained of it."""
    lora = lora_of(options)
    return params if lora is None else join(model.params, params, lora.scale)


def trainable(options: ExperimentConfig, model: Model, agent: str) -> dict:
    """Makes the float32 parameters an agent starts from: adapters, or a copy of the network."""
    lora = lora_of(options)
    if lora is not None:
        return init_adapters(model.config, lora, run_key(options.seed, agent, "adapters"))
    return jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), model.params)


def make_policy(options: ExperimentConfig, bench: Workbench, models: Models, agent: str) -> Policy:
    """The static part of the train step of "manager" or "answer"."""
    lora = lora_of(options)
    manager = agent == "manager"
    return Policy(
        agent=bench.manager if manager else bench.answerer,
        decoder=models.of(agent).decoder,
        answerer=FrozenAnswerer(bench.answerer, models.answerer.decoder, options.consult_batch)
        if manager
        else None,
        reward=options.reward,
        judge=bench.judge,
        horizon=options.horizon if manager and options.horizon.episodic else None,
        adapter_scale=1.0 if lora is None else lora.scale,
    )


def make_frozen(
    options: ExperimentConfig, models: Models, agent: str, answer_params: dict
) -> Frozen:
    """The weights that a train step reads; `answer_params` are what is trained of the answerer."""
    model = models.of(agent)

    def seen_from(other: Model, params: dict) -> dict:
        """The parameters of another role, whole where its base model is not that of `model`."""
        return params if other is model else network(options, other, params)

    answerer = judge = None
    if agent == "manager" and options.algorithm != "sft":  # demonstrations are not judged
        answerer = seen_from(models.answerer, answer_params)
    if models.judge is not None:
        judge = seen_from(models.judge, untrained(options, models.judge))
    uses_reference = options.policy.kl_weight and options.algorithm in ("grpo", "ppo")
    return Frozen(
        reference=untrained(options, model) if uses_reference else None,
        answerer=answerer,
        backbone=model.params if options.lora_rank else None,
        judge=judge,
    )


def manager_data(
    options: ExperimentConfig, bench: Workbench, models: Models, dialogues: list[Conversation]
) -> ManagerData | EpisodeData | Demonstrations:
    """The turns that the manager learns from; says what the fixed sizes leave out."""
    if options.algorithm == "sft":
        shown, counts = manager_demonstrations(
            bench.manager,
            bench.tools,
            bench.encoder,
            models.manager.tokenizer,
            dialogues,
            window=options.window or None,
            corrupt=options.corrupt,
            seed=options.seed,
        )
        _say(f"{shown.rows} demonstrations; not as they should be", _plain(counts))
        return shown
    if options.horizon.episodic:
        return _episode_data(options, bench, dialogues)
    tuples = [
        item
        for dialogue in dialogues
        for item in manager_tuples(dialogue, options.window or None, options.link)
    ]
    missing = _without_facts(options, dialogues)
    missing |= left_out(bench.encoder, tuples, [item.banks for item in tuples])
    _say(f"{len(tuples)} turns; left out", missing)
    return encode_manager_data(bench.encoder, dialogues, tuples)


def _without_facts(options, dialogues):
    """Counts turns that a question points to, but of which the manager would be shown nothing."""
    silent = [
        questions
        for dialogue in dialogues
        for position, questions in linked_questions(dialogue, options.link).items()
        if not facts_of_turn(dialogue, position)
    ]
    return {
        "turns of which no fact is noted": len(silent),
        "questions that belong to these": sum(map(len, silent)),
    }


def _episode_data(options, bench, dialogues):
    turns, questions = options.horizon.episode_turns, options.horizon.final_questions
    made = [
        episode
        for dialogue in dialogues
        for episode in episodes(
            dialogue, turns, options.facts_per_turn, options.horizon.episode_start, options.link
        )
    ]
    missing = left_out_of_episodes(bench.encoder, dialogues, made, questions)
    _say(f"{len(made)} episodes; left out", missing)
    return encode_episodes(bench.encoder, dialogues, made, turns, questions)


def answer_data(
    options: ExperimentConfig,
    bench: Workbench,
    models: Models,
    dialogues: list[Conversation],
    banks: tuple[MemoryBank, MemoryBank],
) -> AnswerData | Demonstrations:
    """The questions that the Answer Agent learns from, and the banks it searches."""
    if options.algorithm != "sft":
        return encode_answer_data(bench.encoder, dialogues, banks)
    shown, counts = answer_demonstrations(
        bench.answerer,
        bench.tools,
        bench.encoder,
        models.answerer.tokenizer,
        dialogues,
        banks,
        verbose=options.verbose,
        seed=options.seed,
    )
    _say(f"{shown.rows} demonstrations; not as they should be", _plain(counts))
    return shown


def gold_banks(bench: Workbench, dialogues: list[Conversation]) -> Ingestion:
    """The banks that the gold operations of generated dialogues leave.

    Raises:
      UserError: a dialogue has none.
    """
    check_gold(dialogues)
    return Ingestion(encode_final_banks(bench.encoder, dialogues), {})


def check_gold(dialogues: list[Conversation]) -> None:
    """Raise UserError where a dialogue has no gold operations to fill banks with."""
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
    """Counts by plain words in place of names."""
    return {name.replace("_", " "): count for name, count in counts.items()}
