"""GRPO beside PPO on one small task: one warm start, the same questions, several seeds each.

A small model is made on the spot and taught by demonstrations of generated dialogues to answer in
the form that is asked for, right some of the time. From there on either algorithm goes on with
questions on other dialogues. Questions, samples a question and steps are the same for both, so that
what differs is where advantages come from: the group, or a critic.
"""

import dataclasses
import importlib.resources
from pathlib import Path
from typing import Any

from memr1_jax.data.synthetic import generate, write_synthetic
from memr1_jax.errors import UserError
from memr1_jax.models.config import DecoderConfig
from memr1_jax.models.small_model import SMALL, write_small_model
from memr1_jax.training.comparison_report import write_report
from memr1_jax.training.config import ExperimentConfig, PPOConfig, SFTConfig, option
from memr1_jax.training.metrics_log import read_metrics

ALGORITHMS = ("grpo", "ppo")
_PROMPT = "compact_nano"
_DIALOGUE = {"num_sessions": 2, "facts_per_session": 3}
# Short prompts and responses, for which two cores are enough.
_SIZES = {
    "agent": "answer",
    "manager_prompt": _PROMPT,
    "answer_prompt": _PROMPT,
    "bank_builder": "add_all",
    "memories": 1,
    "memories_shown": 1,
    "neighbours": 1,
    "max_prompt_length": 88,
    "manager_response_length": 32,
    "answer_response_length": 28,
    "memory_width": 24,
    "bank_capacity": 8,
    "facts_per_turn": 1,
    "questions_per_turn": 1,
    "features": 256,
    "remat": "none",
    "weight_decay": 0.0,
    "evaluate": False,
    "resume": True,  # a folder that holds nothing yet is begun
    "checkpoint_every": 50,
    "keep": 1,
    "samples_every": 10,
}


@dataclasses.dataclass(frozen=True)
class ComparisonConfig:
    """Options of the comparison; what is not here is the same for all its runs."""

    output: str = option("runs/compare_algorithms", "Folder; the same command goes on with it.")
    seeds: int = option(3, "Runs of each algorithm, which differ in sampling and order of data.")
    steps: int = option(100, "Updates of each run.")
    batch: int = option(16, "Questions a step, of either algorithm.")
    group: int = option(8, "Answers sampled to a question, of either algorithm.")
    grpo_learning_rate: float = option(3e-4, "Learning rate of GRPO.")
    ppo_learning_rate: float = option(3e-4, "Learning rate of PPO's policy.")
    critic_learning_rate: float = option(1e-3, "Learning rate of PPO's critic.")
    reward: str = option("exact_match", "What an answer earns.", ("exact_match", "token_f1"))
    dialogues: int = option(400, "Generated dialogues with the questions of these runs.")
    warm_steps: int = option(500, "Steps of learning from demonstrations beforehand.")
    warm_batch: int = option(32, "Demonstrations a step.")
    warm_learning_rate: float = option(2e-3, "Learning rate of that.")
    warm_dialogues: int = option(2000, "Generated dialogues to demonstrate on, others than those.")
    seed: int = option(0, "Seed of dialogues, weights and warm start; the first seed of the runs.")


def compare(options: ComparisonConfig, shape: DecoderConfig = SMALL) -> dict[str, Any]:
    """Makes the model, warms it up, runs both algorithms with every seed and reports.

    What an earlier call has finished in the folder is not repeated. The folder then holds
    `model/`, `warm_start/`, `dialogues.json`, a run folder `<algorithm>_<seed>/` each, and
    `results.json`, `results.md` and `reward.png`.

    Args:
      options: of the comparison.
      shape: of the model.

    Returns:
      What `results.json` holds.

    Raises:
      UserError: an option makes no sense, or the folder was begun with other settings.
      Preempted: a run was asked to stop; its state is saved.
    """
    for name in ("seeds", "steps", "warm_steps"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name}={getattr(options, name)} must be at least 1.")
    folder = Path(options.output).expanduser().absolute()
    _share_compiled(folder / "compiled")
    if not (folder / "model").is_dir():
        write_small_model(folder / "model", tokenizer_texts(), shape, options.seed)
    run_to_its_end("warm start by demonstrations", warm_options(options, folder))
    if not (folder / "dialogues.json").exists():
        write_synthetic(
            folder / "dialogues.json",
            options.seed + 1,
            train=options.dialogues,
            validation=1,
            test=0,
            **_DIALOGUE,
        )
    curves = {
        algorithm: [
            run_to_its_end(
                f"{algorithm.upper()}, seed {seed}", run_options(options, folder, algorithm, seed)
            )
            for seed in range(options.seed, options.seed + options.seeds)
        ]
        for algorithm in ALGORITHMS
    }
    return write_report(folder, dataclasses.asdict(options), curves)


def warm_options(options: ComparisonConfig, folder: Path) -> SFTConfig:
    """The warm start: supervised, from random weights."""
    return SFTConfig(
        **_SIZES,
        model=str(folder / "model"),
        output=str(folder / "warm_start"),
        answer_steps=options.warm_steps,
        batch=options.warm_batch,
        group=1,
        learning_rate=options.warm_learning_rate,
        warmup_steps=min(20, options.warm_steps),
        synthetic_train=options.warm_dialogues,
        synthetic_eval=1,
        synthetic_sessions=_DIALOGUE["num_sessions"],
        synthetic_facts=_DIALOGUE["facts_per_session"],
        seed=options.seed,
    )


def run_options(
    options: ComparisonConfig, folder: Path, algorithm: str, seed: int
) -> ExperimentConfig:
    """One run of GRPO or PPO from the warm start: the same but for what each has alone.

    Without a KL penalty, which would hold a policy near a start that is meant to be left.
    """
    kinds = {"grpo": ExperimentConfig, "ppo": PPOConfig}
    rates = {"grpo": options.grpo_learning_rate, "ppo": options.ppo_learning_rate}
    return kinds[algorithm](
        **_SIZES,
        model=str(folder / "warm_start" / "export" / "answer"),
        output=str(folder / f"{algorithm}_{seed}"),
        data="locomo",  # the format of the file
        data_path=str(folder / "dialogues.json"),
        answer_steps=options.steps,
        batch=options.batch,
        group=options.group,
        learning_rate=rates[algorithm],
        critic_learning_rate=options.critic_learning_rate,
        kl_weight=0.0,
        reward=options.reward,
        export=False,
        seed=seed,
    )


def run_to_its_end(title: str, options: ExperimentConfig) -> list[dict[str, Any]]:
    """The metrics of an experiment's steps; it is run, or gone on with, where any are missing."""
    from memr1_jax.training.experiment import Experiment

    folder = Path(options.output)
    if not _finished(folder, options):
        print(f"== {title}", flush=True)
        Experiment(options).run()
    return read_metrics(folder / "metrics.jsonl")


def _finished(folder: Path, options: ExperimentConfig) -> bool:
    """Whether the folder holds all that the options ask for, made with just these options."""
    flags = "".join(f"--{name}={value}\n" for name, value in dataclasses.asdict(options).items())
    if not (folder / "flags.txt").exists() or (folder / "flags.txt").read_text() != flags:
        return False  # `Experiment` says what differs
    exported = not options.export or (folder / "export" / "answer" / "config.json").exists()
    steps = [record["step"] for record in read_metrics(folder / "metrics.jsonl")]
    return exported and steps[-1:] == [options.answer_steps]


def tokenizer_texts() -> list[str]:
    """What the small model's tokenizer is trained on: generated dialogues and the prompts."""
    texts = ["user\nassistant\n"] * 50
    for record in generate(0, 500, split="tokenizer", **_DIALOGUE):
        observations = record["observation"].values()
        notes = [note for part in observations for told in part.values() for note, _ in told]
        times = [text for text in record["conversation"].values() if isinstance(text, str)]
        asked = [f"{item['question']} **Answer:** {item['answer']}" for item in record["qa"]]
        texts += [f" {text}" for text in (*notes, *times, *asked)]
    prompts = importlib.resources.files("memr1_jax.agents") / "prompts"
    for agent in ("answer", "manager"):
        texts += [(prompts / f"{agent}_{_PROMPT}.txt").read_text(encoding="utf-8")] * 50
    return texts


def _share_compiled(folder: Path) -> None:
    """What one run compiles serves the next, unless the user has named another place for that."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
