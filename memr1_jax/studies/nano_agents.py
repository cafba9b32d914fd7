"""Makes the nano agents: one small decoder that extracts facts, manages memories and answers.

The nano model of `nano` is a start for reinforcement learning and knows the closed lists of words
of generated dialogues. The nano agents are for use. They read raw turns, and most of their names
and values are real words from outside those lists, or invented, so that they learn to copy.

Axis letters: N demonstrations, P prompt length, R response length.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memr1_jax.agents.agent_folder import write_settings
from memr1_jax.agents.agent_pair import build_agent_pair, load_models
from memr1_jax.agents.extractor import (
    NOTHING,
    FactExtractor,
    TurnText,
    prompt_tokens,
    write_facts,
)
from memr1_jax.agents.templates import load_template
from memr1_jax.data.batches import row_batches
from memr1_jax.data.encode import Encoder
from memr1_jax.data.synthetic import generate, generate_conversations
from memr1_jax.data.types import Conversation
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.hf.hf_weights import export_params
from memr1_jax.models.precision import float32_copy
from memr1_jax.models.small_model import write_small_model
from memr1_jax.options import at_least, between, check, option, with_default
from memr1_jax.run.progress import table
from memr1_jax.studies.nano import (
    FORMS,
    Lessons,
    demonstrated,
    equal_share,
    falling_rate,
    gather_lessons,
    new_folder,
    record_texts,
    teach,
    write_report,
)
from memr1_jax.training.config import ExperimentConfig, OutputConfig

SHAPE = DecoderConfig(  # 1.1 million parameters
    vocab_size=2048,
    num_layers=4,
    model_width=128,
    num_heads=4,
    num_kv_heads=4,
    head_size=32,
    mlp_width=384,
    max_positions=1024,
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
    "endings": 0.15,
    "repeats": 0.1,
}
_AGENTS = ("extract", "manager", "answer")
_SMALL_TALK = 0.2  # share of the turns without facts that are demonstrated


@dataclasses.dataclass(frozen=True)
class NanoAgentsConfig(OutputConfig):
    """Set the lessons of the nano agents, which are written to the folder `model` of --output."""

    output: str = with_default(OutputConfig, "output", "runs/nano_agents")
    steps: int = option(6000, "Steps; each agent takes a third of them.", within=at_least(1))
    dialogues: int = option(
        4000, "Generated dialogues with the demonstrations.", within=at_least(1)
    )
    test_dialogues: int = option(
        60, "Generated dialogues to test the model on.", within=at_least(1)
    )
    open_words: float = option(
        0.6, "Share of names and values from outside the closed lists.", within=between(0, 1)
    )
    batch: int = option(32, "Demonstrations a step.", within=at_least(1))
    learning_rate: float = option(
        4e-3, "Peak learning rate; it falls to a twentieth by a cosine.", within=at_least(0)
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
    texts = _texts(options.open_words)
    start = write_small_model(folder / "untaught", texts, shape, options.seed)
    config = ExperimentConfig(model=str(start), **SIZES)
    models = load_models(config)
    seeds = iter(range(options.seed + 1, 1 << 30))
    pair = build_agent_pair(config, models, open_dialogues(next(seeds), 300, options.open_words))
    model = models.manager
    extractor = FactExtractor(
        template=load_template("compact_nano", model.tokenizer, role="facts"),
        prompt_length=96,
        response_length=44,
        stop_tokens=model.stop_tokens,
    )

    def lessons(dialogues: int, what: str) -> dict[str, Lessons]:
        def demonstrate_some(count):
            told = open_dialogues(next(seeds), count, options.open_words, split=what)
            found = demonstrated(pair, models, told)
            return {"extract": extractions(extractor, pair.encoder, model.tokenizer, told), **found}

        found = gather_lessons(dialogues, what, demonstrate_some)
        return {agent: _cropped(lessons) for agent, lessons in found.items()}

    test, clean = lessons(options.test_dialogues, "test"), lessons(options.dialogues, "train")
    agents = {"extract": extractor, "manager": pair.manager, "answer": pair.answerer}
    params = teach(
        agents,
        model.decoder,
        float32_copy(model.params),
        clean,
        "right",
        rate=falling_rate(options.learning_rate, options.steps, warmup=100),
        steps=options.steps,
        batch=options.batch,
        turns=_AGENTS,
        seed=options.seed,
    )
    scores = {
        agent: equal_share(agents[agent], model.decoder, params, test[agent]) for agent in _AGENTS
    }
    table(
        "Greedy output equal to the right demonstration, held-out dialogues",
        ("agent", "demonstrations", "equal"),
        [(agent, len(test[agent].prompt), score) for agent, score in scores.items()],
    )
    made = export_params(
        folder / "model", jax.device_get(params), shape, tokenizer_folder=start, dtype="bfloat16"
    )
    write_settings(made, config, "extracted", jax.device_get(pair.tools.embedder))
    write_report(folder, options, equal_to_gold=scores)
    print(f"The model is in {made}")
    return made


def open_dialogues(
    seed: int, count: int, open_words: float, split: str = "train"
) -> list[Conversation]:
    """Generates dialogues of the nano agents' kind."""
    return generate_conversations(seed, count, split=split, open_words=open_words, **_DIALOGUES)


def extractions(
    extractor: FactExtractor, encoder: Encoder, tokenizer: Any, dialogues: list[Conversation]
) -> Lessons:
    """Demonstrates what to extract from each turn with a fact, and from some of the others."""
    shown, targets = [], []
    chance = np.random.default_rng(len(dialogues))
    for dialogue in dialogues:
        noted: dict[str, list[str]] = {}
        for fact in dialogue.facts:
            noted.setdefault(fact.sources[-1], []).append(fact.text)
        for session in dialogue.sessions:
            for turn in session.turns:
                if turn.dia_id in noted or chance.random() < _SMALL_TALK:
                    shown.append((turn.speaker, session.time, turn.text))
                    targets.append(write_facts(noted.get(turn.dia_id, ())))
    return _lessons(extractor, encoder, tokenizer, shown, targets)


def _lessons(extractor, encoder, tokenizer, shown, targets) -> Lessons:
    stop = extractor.stop_tokens[0]
    encoded = [[*tokenizer.encode(text, add_special_tokens=False), stop] for text in targets]
    kept = [row for row, ids in enumerate(encoded) if len(ids) <= extractor.response_length]
    columns = zip(*(shown[row] for row in kept), strict=True)
    rows = TurnText(*(encoder.rows(column, extractor.turn_width) for column in columns))
    prompts = [
        jax.device_get(prompt_tokens(extractor, jax.tree.map(lambda x, i=index: x[i], rows)))
        for index, _ in row_batches(len(kept), 256)
    ]
    prompt, length = (np.concatenate(part)[: len(kept)] for part in zip(*prompts, strict=True))
    response = np.zeros((len(kept), extractor.response_length), np.int16)
    for place, row in enumerate(kept):
        response[place, : len(encoded[row])] = encoded[row]
    response_length = np.array([len(encoded[row]) for row in kept], np.int32)
    return Lessons(prompt.astype(np.int16), length, response, response_length)


def _cropped(lessons: Lessons, share: float = 0.995) -> Lessons:
    """Leaves out the longest half percent, so that the others need less padding."""
    width = int(np.quantile(lessons.prompt_length, share))
    tall = int(np.quantile(lessons.response_length, share))
    kept = (lessons.prompt_length <= width) & (lessons.response_length <= tall)
    prompt, length, response, response_length = (part[kept] for part in lessons)
    return Lessons(prompt[:, :width], length, response[:, :tall], response_length)


def _texts(open_words: float) -> Iterator[str]:
    """Yields the tokenizer's training texts: turns, facts, questions, answers and operations."""
    yield from FORMS
    yield from [f"Turn of: :\nFacts:\n- \n{NOTHING}\n"] * 50
    records: list[Mapping[str, Any]] = generate(
        0, 500, split="tokenizer", open_words=open_words, **_DIALOGUES
    )
    for record in records:
        for name, value in record["conversation"].items():
            if isinstance(value, list) and name.startswith("session_"):
                yield from (f" {turn['text']}" for turn in value)
        yield from record_texts(record)
