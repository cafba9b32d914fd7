"""Makes the nano agents: one small decoder that extracts facts, manages memories and answers.

The nano model of `nano` is a start for reinforcement learning and knows the closed lists of words
of generated dialogues. The nano agents are for use. They read raw turns of everyday statements
(`data/everyday.py`), and many of the names and values there are invented, so that they learn to
copy.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memr1_jax.agents.agent_folder import write_settings
from memr1_jax.agents.agent_pair import build_agent_pair, load_models
from memr1_jax.agents.extractor import NOTHING, create_extractor
from memr1_jax.data.synthetic import generate, generate_conversations
from memr1_jax.data.types import Conversation
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.families import FAMILIES, FULL, SLIDING
from memr1_jax.models.hf.hf_weights import export_params
from memr1_jax.models.precision import float32_copy
from memr1_jax.models.small_model import write_small_model
from memr1_jax.options import at_least, between, check, option, with_default
from memr1_jax.run.progress import table
from memr1_jax.run.run_folder import OutputConfig
from memr1_jax.studies.agent_lessons import Lesson, LessonWriter
from memr1_jax.studies.nano import (
    FORMS,
    counted_parts,
    new_folder,
    record_texts,
    write_report,
)
from memr1_jax.studies.teaching import right_tokens, steady_rate, teach_lessons
from memr1_jax.training.config import ExperimentConfig

# 0.8 million parameters. Every other layer sees four tokens, so that what came before a word is
# known to the layer after it: from there on the model finds a word by what precedes it, and copies.
SHAPE = DecoderConfig(
    vocab_size=1024,
    num_layers=4,
    model_width=128,
    num_heads=4,
    num_kv_heads=4,
    head_size=32,
    mlp_width=256,
    max_positions=1024,
    family=FAMILIES["qwen3"],
    layer_kinds=(SLIDING, FULL) * 2,
    window=4,
)
SIZES = {
    "manager_prompt": "compact_nano",
    "answer_prompt": "compact_nano",
    "judge_prompt": "compact_nano",
    "memories": 4,
    "neighbours": 4,
    "memories_shown": 4,
    "max_prompt_length": 224,
    "manager_response_length": 44,
    "answer_response_length": 64,
    "memory_width": 32,
    "bank_capacity": 64,
    "facts_per_turn": 1,
    "questions_per_turn": 2,
    "features": 512,
    "remat": "none",
}
_DIALOGUES = {
    "num_sessions": 3,
    "facts_per_session": 5,
    "changes": 0.3,
    "endings": 0.12,
    "repeats": 0.1,
    "small_talk": 0.2,
    "everyday": True,
    "rephrased": 0.7,
    "wordings": 0.08,
}
_AGENTS = ("extract", "manager", "answer")
_SHORT_STEPS = 400  # first steps, which take short lessons


@dataclasses.dataclass(frozen=True)
class NanoAgentsConfig(OutputConfig):
    """Set the lessons of the nano agents, which are written to the folder `model` of --output."""

    output: str = with_default(OutputConfig, "output", "runs/nano_agents")
    steps: int = option(5000, "Steps on lessons of all three agents.", within=at_least(1))
    dialogues: int = option(1500, "Generated dialogues with the lessons.", within=at_least(1))
    test_dialogues: int = option(
        30, "Generated dialogues to test the model on.", within=at_least(1)
    )
    tokens: int = option(1024, "Tokens of lessons a step, padding included.", within=at_least(64))
    prompt_weight: float = option(
        0.3, "Weight of a prompt's token, where one of a response has 1.", within=between(0, 1)
    )
    learning_rate: float = option(
        5e-3,
        "Learning rate; it falls to a twentieth over the last three fifths of the steps.",
        within=at_least(0),
    )
    seed: int = option(0, "Seed of dialogues, weights and order.", within=between(0, 2**29))


def make_nano_agents(options: NanoAgentsConfig, shape: DecoderConfig = SHAPE) -> Path:
    """Makes the model and returns its folder, which transformers can load.

    Next to it `report.json` holds the options and how many held-out demonstrations the model's
    greedy output equals.

    Raises:
      UserError: an option makes no sense, or the folder holds a run.
    """
    check(options)
    opened = new_folder(options, "nano_agents")  # held until the model is written
    folder = opened.path
    start = write_small_model(
        folder / "untaught", _texts(), shape, options.seed, capitals_apart=True
    )
    config = ExperimentConfig(model=str(start), **SIZES)
    models = load_models(config)
    model = models.manager
    seeds = iter(range(options.seed + 1, 1 << 30))
    pair = build_agent_pair(config, models, everyday_dialogues(next(seeds), 300))
    extractor = create_extractor(
        model, config.manager_prompt, config.max_prompt_length, config.manager_response_length
    )
    writer = LessonWriter(pair, extractor, model.tokenizer)

    def lessons(dialogues: int, split: str) -> dict[str, list[Lesson]]:
        found: dict[str, list[Lesson]] = {agent: [] for agent in _AGENTS}
        for count in counted_parts(dialogues, f"lessons, {split}"):
            seed = next(seeds)
            told = everyday_dialogues(seed, count, split)
            for agent, more in writer.lessons(told, seed).items():
                found[agent] += more
        return found

    test, taught = lessons(options.test_dialogues, "test"), lessons(options.dialogues, "train")
    params = teach_lessons(
        model.decoder,
        float32_copy(model.params),
        [lesson for agent in _AGENTS for lesson in taught[agent]],
        rate=steady_rate(options.learning_rate, options.steps),
        steps=options.steps,
        tokens=options.tokens,
        prompt_weight=options.prompt_weight,
        seed=options.seed,
        short_steps=min(_SHORT_STEPS, options.steps // 2),
    )
    seen = {word for lessons in taught.values() for word in _words(model.tokenizer, lessons)}
    scores = {agent: _scores(model, params, test[agent], seen) for agent in _AGENTS}
    table(
        "Greedy output equal to the right demonstration, held-out dialogues",
        ("agent", "demonstrations", "equal", "unseen words copied"),
        [(agent, len(test[agent]), *score.values()) for agent, score in scores.items()],
    )
    made = export_params(
        folder / "model", jax.device_get(params), shape, tokenizer_folder=start, dtype="bfloat16"
    )
    write_settings(made, config, "extracted", jax.device_get(pair.tools.embedder))
    write_report(folder, options, held_out=scores)
    print(f"The model is in {made}")
    return made


def everyday_dialogues(seed: int, count: int, split: str = "train") -> list[Conversation]:
    """Generates dialogues of the nano agents' kind."""
    return generate_conversations(seed, count, split=split, **_DIALOGUES)


def _scores(model: Any, params: dict, lessons: Sequence[Lesson], seen: set[str]) -> dict:
    """Returns the shares of responses that greedy output equals, and of unseen words copied."""
    right = right_tokens(model.decoder, params, lessons)
    copied = [
        bool(tokens[start:end].all())
        for lesson, tokens in zip(lessons, right, strict=True)
        for word, start, end in _placed_words(model.tokenizer, lesson.response)
        if word not in seen
    ]
    return {
        "equal": float(np.mean([tokens.all() for tokens in right])),
        "copied": float(np.mean(copied)) if copied else 1.0,
    }


def _words(tokenizer: Any, lessons: Sequence[Lesson]) -> Iterator[str]:
    for lesson in lessons:
        yield from (word for word, *_ in _placed_words(tokenizer, lesson.response))


def _placed_words(tokenizer: Any, tokens: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Yields the words of a text, and the places of the tokens that each has letters of."""
    pieces = [tokenizer.decode([int(token)]) for token in tokens]
    ends = np.cumsum([len(piece) for piece in pieces])
    for found in re.finditer(r"[A-Za-z]+", "".join(pieces)):
        first = int(np.searchsorted(ends, found.start(), side="right"))
        yield found[0], first, int(np.searchsorted(ends, found.end())) + 1


def _texts() -> Iterator[str]:
    """Yields the tokenizer's training texts: turns, facts, questions, answers and operations."""
    yield from FORMS
    yield from [f"Turn of: :\nFacts:\n- \n{NOTHING}\n"] * 50
    records: list[Mapping[str, Any]] = generate(0, 500, split="tokenizer", **_DIALOGUES)
    for record in records:
        for name, value in record["conversation"].items():
            if isinstance(value, list) and name.startswith("session_"):
                yield from (f" {turn['text']}" for turn in value)
        yield from record_texts(record)
