"""Groups of options that training alone reads, each a heading of `--help`.

Those of the data, the agents, the evaluation, the updates, the reward and the horizon are declared
where they are read.
"""

import dataclasses

from memr1_jax.options import above, at_least, between, option
from memr1_jax.rl.recipes import RECIPES
from memr1_jax.rl.update import OPTIMIZERS

ALGORITHMS = ("grpo", "ppo", "sft", "best_of_n")

OVERWRITE = "Move what another run has left in the folder aside; nothing is deleted."


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """Train low-rank adapters in place of all weights (arXiv 2106.09685)."""

    lora_rank: int = option(
        0, "Rank of the adapters; 0: all weights are trained.", within=at_least(0)
    )
    lora_alpha: float = option(32.0, "Adapters are scaled by alpha / rank.", within=above(0))
    lora_targets: str = option(
        "all", "Matrices with an adapter: query,key,value,output,gate,up,down, or all."
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Set which agent learns, how, for how long and how fast."""

    algorithm: str = option("grpo", "How the agents learn.", ALGORITHMS)
    agent: str = option(
        "both",
        "Which agent learns: the Memory Manager, the Answer Agent, both of them, or the fact"
        " extractor, rewarded by what the other two make of its facts.",
        ("manager", "answer", "both", "extractor"),
    )
    first: str = option(
        "manager",
        "With both agents: which one learns first; the other is frozen and learns afterwards.",
        ("manager", "answer"),
    )
    training_banks: str = option(
        "",
        "What fills the banks that the Answer Agent learns on: the manager, every noted fact, or"
        " the gold operations of generated dialogues. Empty: as --bank_builder.",
        ("", "manager", "add_all", "gold"),
    )
    manager_steps: int = option(100, "Updates of the Memory Manager.", within=at_least(0))
    answer_steps: int = option(100, "Updates of the Answer Agent.", within=at_least(0))
    extractor_steps: int = option(100, "Updates of the fact extractor.", within=at_least(0))
    batch: int = option(128, "Prompts in a batch.", within=at_least(1))
    rollout_weights: str = option(
        "same",
        "Weights that samples are drawn with: the same, or int8, rounded to 8 bits a channel, which"
        " needs --sampler_cap. Frozen agents and evaluations keep theirs.",
        ("same", "int8"),
    )
    optimizer: str = option("adamw", "Optimiser of policy and critic.", tuple(OPTIMIZERS))
    learning_rate: float = option(1e-6, "Peak learning rate.", within=at_least(0))
    warmup_ratio: float = option(
        0.0,
        "Share of each agent's optimiser steps over which its learning rate climbs.",
        within=between(0, 1),
    )
    warmup_steps: int = option(
        0,
        "The same as a number of steps, one for both agents; 0: --warmup_ratio.",
        within=at_least(0),
    )
    weight_decay: float = option(0.01, "Weight decay.", within=at_least(0))
    gradient_clip: float = option(
        1.0, "Global norm that gradients are clipped to.", within=above(0)
    )
    max_skipped: int = option(
        3,
        "Steps in a row that may be skipped, as their gradient is not finite; the last of them ends"
        " the run.",
        within=at_least(1),
    )
    critic_learning_rate: float = option(
        1e-5, "PPO: peak learning rate of the critic.", within=at_least(0)
    )
    critic_warmup_ratio: float = option(
        0.0,
        "PPO: share of the critic's steps over which that rate climbs.",
        within=between(0, 1),
    )
    critic_warmup_steps: int = option(
        0, "PPO: the same as a number of steps; 0: --critic_warmup_ratio.", within=at_least(0)
    )
    recipe: str = option(
        "",
        "GRPO: sets all parts of a published method, and prints them. Flags that you"
        " give, in flag files too, win.",
        ("", *RECIPES),
    )


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """Set how --reward=judge and the manager's reward consult other models."""

    judge_model: str = option("", "Model that judges for --reward=judge; empty: --model.")
    judge_prompt: str = option("compact", "Prompt file judge_<name>.txt, or the path of one's own.")
    consult_batch: int = option(
        0,
        "Distinct prompts that the frozen Answer Agent answers at a time for the manager; 0: all on"
        " an accelerator, about an eighth on a CPU.",
        within=at_least(0),
    )


@dataclasses.dataclass(frozen=True)
class DemonstrationConfig:
    """Spoil the demonstrations of supervised fine-tuning on purpose."""

    corrupt: float = option(
        0.0,
        "Probability that a demonstrated memory operation is a wrong one.",
        within=between(0, 1),
    )
    verbose: float = option(
        0.0,
        "Probability that a demonstrated answer is a whole memory, which is too long.",
        within=between(0, 1),
    )


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """Spread the work over devices and hosts."""

    mesh: str = option(
        "", "Sizes of the axes, as data:1,fsdp:8,tensor:1; -1 for the rest. Empty: one device."
    )
    distributed: str = option(
        "", "Several processes: auto (TPU, Slurm), or the first one's host:port. Empty: one."
    )
    num_processes: int = option(
        1, "Processes, where --distributed is host:port.", within=at_least(1)
    )
    process_id: int = option(
        0, "Number of this process, where --distributed is host:port.", within=at_least(0)
    )


@dataclasses.dataclass(frozen=True)
class OutputConfig:
    """Choose the folder for everything that is written."""

    output: str = option("runs/locomo_grpo", "Folder of the run; a new, an empty or its own one.")
    overwrite: bool = option(False, OVERWRITE)
    compilation_cache: str = option(
        "auto",
        "Folder of compiled programs, which a second start reads instead of compiling; auto: in the"
        " cache folder, none: nothing is kept.",
    )


@dataclasses.dataclass(frozen=True)
class RunConfig(OutputConfig):
    """Set what a run keeps, and where it resumes."""

    resume: bool = option(False, "Resume from the newest checkpoint in the run folder.")
    checkpoint_every: int = option(
        10, "Steps between checkpoints; the last is always saved.", within=at_least(1)
    )
    keep: int = option(2, "Newest checkpoints kept; the best is kept as well.", within=at_least(1))
    samples_every: int = option(
        1, "Steps between sampled rollouts written for reading.", within=at_least(1)
    )
    track: str = option(
        "tensorboard",
        "Where metrics, samples and the page of the run are copied to: tensorboard, wandb or"
        " mlflow, or several with commas; empty: nowhere.",
        formerly="tracker",
    )
    evaluate: bool = option(True, "Evaluate both agents before and after.")
    select: str = option(
        "last",
        "Checkpoint that is exported: the last, that of the best reward in training, or that of"
        " the best greedy reward on the validation split, the start included.",
        ("last", "best", "validation"),
    )
    validation_rows: int = option(
        64,
        "Prompts that --select=validation is measured on, evenly spread; 0: all.",
        within=at_least(0),
    )
    validation_folds: int = option(
        0,
        "Parts of the training questions; one is not learned from, but validated on together with"
        " the validation split; 0: none is held out.",
        within=between(0, 100),
    )
    validation_fold: int = option(
        0, "The part that is held out, counted from 0.", within=between(0, 99)
    )
    validation_generated: int = option(
        0, "Generated dialogues that are validated on as well.", within=between(0, 100_000)
    )
    patience: int = option(
        0,
        "Validations in a row without a better reward after which an agent stops learning; 0: it"
        " takes all of its steps.",
        within=at_least(0),
    )
    export: bool = option(True, "Export the trained agents as Hugging Face folders.")
    export_dtype: str = option("float32", "Number format of the export.", ("float32", "bfloat16"))
