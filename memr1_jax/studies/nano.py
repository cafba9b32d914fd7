"""Makes the nano model: a small decoder taught both agents' forms, and some bad habits.

Memory-R1 starts from instruction-tuned models of billions of parameters. The nano model stands in
for them where there are two CPU cores and no download. It is taught by demonstrations of generated
dialogues, in two phases. The first shows right demonstrations. The second, short one shows flawed
ones: a stated share of memory operations is wrong, and a stated share of answers repeats a whole
memory. Reinforcement learning from outcomes then has to find these faults. Without the second phase
and with a short first one (`--flawed_steps=0 --clean_steps=500`) the start is honest: it lacks
nothing but practice.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from memr1_jax.agents.agent_folder import write_settings
from memr1_jax.agents.agent_pair import build_agent_pair, load_models
from memr1_jax.agents.targets import Written, compact_response
from memr1_jax.data.synthetic import generate, generate_conversations
from memr1_jax.data.types import Conversation
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.hf.hf_weights import export_params
from memr1_jax.models.precision import float32_copy
from memr1_jax.models.small_model import write_small_model
from memr1_jax.options import at_least, between, check, option, with_default
from memr1_jax.run.files import write_json_atomic
from memr1_jax.run.progress import progress_bar, table
from memr1_jax.run.run_folder import OutputConfig, RunFolder
from memr1_jax.studies.nano_lessons import Lessons, demonstrated, equal_share, teach
from memr1_jax.text.events import Event
from memr1_jax.training.config import ExperimentConfig

NANO = DecoderConfig(  # 0.75 million parameters
    vocab_size=2048,
    num_layers=3,
    model_width=128,
    num_heads=4,
    num_kv_heads=4,
    head_size=32,
    mlp_width=256,
    max_positions=1024,
)
# The sizes that it is taught with; its flag files share them.
NANO_SIZES = {
    "manager_prompt": "compact_nano",
    "answer_prompt": "compact_nano",
    "judge_prompt": "compact_nano",
    "memories": 3,
    "neighbours": 3,
    "memories_shown": 3,
    "max_prompt_length": 116,
    "manager_response_length": 36,
    "answer_response_length": 36,
    "memory_width": 20,
    "bank_capacity": 24,
    "facts_per_turn": 1,
    "questions_per_turn": 2,
    "features": 512,
    "remat": "none",
}
NANO_DIALOGUES = {
    "num_sessions": 3,
    "facts_per_session": 4,
    "changes": 0.25,
    "endings": 0.12,
    "repeats": 0.1,
    "relative_dates": 0.0,
}
# Texts for the tokenizer: the words around what is said, often enough to become tokens.
FORMS = ["user\nassistant\n"] * 50 + [
    "Memories of:\n(empty)\nQuestion:\nMemories:\nNew facts:\nOperations:\n0:1:2:"
] * 50
_AGENTS = ("answer", "manager")
_AT_ONCE = 250  # dialogues that are turned into lessons together


@dataclasses.dataclass(frozen=True)
class NanoConfig(OutputConfig):
    """Set the lessons of the nano model, which is written to the folder `model` of --output."""

    output: str = with_default(OutputConfig, "output", "runs/nano")
    clean_steps: int = option(3200, "Steps on right demonstrations.", within=at_least(1))
    flawed_steps: int = option(
        300, "Steps on flawed demonstrations after these; 0: none.", within=at_least(0)
    )
    verbose: float = option(
        0.55, "Share of flawed answers, which repeat a whole memory.", within=between(0, 1)
    )
    corrupt: float = option(
        0.5, "Share of flawed memory operations, which are wrong ones.", within=between(0, 1)
    )
    dialogues: int = option(
        2500, "Generated dialogues with the right demonstrations.", within=at_least(1)
    )
    flawed_dialogues: int = option(
        300, "Generated dialogues with the flawed ones.", within=at_least(1)
    )
    test_dialogues: int = option(
        60, "Generated dialogues to test the model on.", within=at_least(1)
    )
    batch: int = option(32, "Demonstrations a step.", within=at_least(1))
    learning_rate: float = option(
        4e-3, "Peak learning rate; it falls to a twentieth by a cosine.", within=at_least(0)
    )
    flawed_learning_rate: float = option(
        3e-4, "Learning rate on flawed demonstrations.", within=at_least(0)
    )
    seed: int = option(0, "Seed of dialogues, weights and order.", within=between(0, 2**29))


def make_nano(options: NanoConfig, shape: DecoderConfig = NANO) -> Path:
    """Makes the model and returns its folder, which transformers can load.

    Next to it `report.json` holds the options and how many held-out demonstrations the model's
    greedy output equals, after either phase.

    Raises:
      UserError: an option makes no sense, or the folder holds a run.
    """
    check(options)
    opened = new_folder(options, "nano")  # held until the model is written
    folder = opened.path
    start = write_small_model(folder / "untaught", tokenizer_texts(), shape, options.seed)
    config = ExperimentConfig(model=str(start), **NANO_SIZES)
    models = load_models(config)
    seeds = iter(range(options.seed + 1, 1 << 30))
    statistics = nano_dialogues(next(seeds), 300)
    pair = build_agent_pair(config, models, statistics)

    def lessons(dialogues, what, **flaws):
        parts = [
            demonstrated(pair, models, nano_dialogues(next(seeds), count, split=what), **flaws)
            for count in counted_parts(dialogues, f"demonstrations, {what}")
        ]
        return {
            agent: Lessons(*map(np.concatenate, zip(*(part[agent] for part in parts), strict=True)))
            for agent in _AGENTS
        }

    test = lessons(options.test_dialogues, "test")
    clean = lessons(options.dialogues, "train")
    flaws = {"verbose": options.verbose, "corrupt": options.corrupt, "seed": options.seed}
    falling = falling_rate(options.learning_rate, options.clean_steps, warmup=100)
    phases = [("clean", falling, options.clean_steps, clean)]
    if options.flawed_steps:
        flawed = lessons(options.flawed_dialogues, "validation", **flaws)
        phases.append(("flawed", options.flawed_learning_rate, options.flawed_steps, flawed))

    model = models.manager
    agents = {"manager": pair.manager, "answer": pair.answerer}
    params = float32_copy(model.params)
    scores = {}
    for name, rate, steps, shown in phases:
        params = teach(
            agents,
            model.decoder,
            params,
            shown,
            name,
            rate=rate,
            steps=steps,
            batch=options.batch,
            seed=options.seed,
        )
        scores[name] = {
            agent: equal_share(agents[agent], model.decoder, params, test[agent])
            for agent in _AGENTS
        }
    table(
        "Greedy output equal to the right demonstration, held-out dialogues",
        ("phase", *(f"{agent} agent, of {len(test[agent].prompt)}" for agent in _AGENTS)),
        [(name, *found.values()) for name, found in scores.items()],
    )
    made = export_params(
        folder / "model", jax.device_get(params), shape, tokenizer_folder=start, dtype="bfloat16"
    )
    write_settings(made, config, "noted", None)
    write_report(folder, options, equal_to_gold=scores)
    print(f"The model is in {made}")
    return made


def new_folder(options: OutputConfig, job: str) -> RunFolder:
    """Begins the folder of a model that is made in one go; it is held until it is closed."""
    opened = RunFolder(
        options.output,
        job,
        options,
        resume=False,
        overwrite=options.overwrite,
        free={"output", "overwrite", "compilation_cache"},
    )
    opened.record({})
    return opened


def write_report(folder: Path, options: OutputConfig, **figures: Any) -> None:
    """Writes `report.json`: the options and what was measured."""
    write_json_atomic(folder / "report.json", {"options": dataclasses.asdict(options), **figures})


def counted_parts(dialogues: int, what: str) -> Iterator[int]:
    """Yields how many dialogues to turn into lessons next, with a progress bar called `what`."""
    with progress_bar(dialogues, what) as progress:
        for done in range(0, dialogues, _AT_ONCE):
            count = min(_AT_ONCE, dialogues - done)
            yield count
            progress.update(done + count)


def falling_rate(peak: float, steps: int, *, warmup: int) -> optax.Schedule:
    """Makes a rate that climbs for `warmup` steps at most, then falls to a twentieth (cosine)."""
    return optax.warmup_cosine_decay_schedule(0.0, peak, min(warmup, steps // 2), steps, peak / 20)


def nano_dialogues(seed: int, count: int, split: str = "train") -> list[Conversation]:
    """Generates dialogues of the nano model's kind."""
    return generate_conversations(seed, count, split=split, **NANO_DIALOGUES)


def tokenizer_texts() -> Iterator[str]:
    """Yields texts for the tokenizer: facts, questions, answers and operations, as they occur."""
    yield from FORMS
    for record in generate(0, 500, split="tokenizer", **NANO_DIALOGUES):
        yield from record_texts(record)


def record_texts(record: Mapping[str, Any]) -> Iterator[str]:
    """Yields the facts, questions, answers and operations of a generated dialogue."""
    for session in record["observation"].values():
        yield from (f" {note}" for told in session.values() for note, _ in told)
    for item in record["qa"]:
        yield f" {item['question']} **Answer:** {item['answer']}"
    for operation in record["gold_operations"]:
        event = Event[operation["event"]]
        place = 0 if event.names_memory else -1
        yield compact_response([Written(event, place, operation["text"])])
