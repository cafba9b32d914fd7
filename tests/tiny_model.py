"""A tiny model folder made on the spot, with which whole experiments run in seconds."""

import atexit
import dataclasses
import functools
import importlib.resources
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.agents.agent_pair import AgentPair, Models, build_agent_pair, load_models
from memr1_jax.agents.ingest import add_everything, ingest
from memr1_jax.data.batches import AnswerData, EpisodeData, Facts, ManagerData
from memr1_jax.data.dialogues import load_dialogues
from memr1_jax.data.encode import encode_answer_data, encode_manager_data
from memr1_jax.data.episodes import encode_episodes, episodes
from memr1_jax.data.synthetic import generate
from memr1_jax.data.tuples import manager_tuples
from memr1_jax.data.types import Conversation
from memr1_jax.memory.bank import MemoryBank, bank_from_facts
from memr1_jax.models.decoder import init_params
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.families import FAMILIES, FULL, SLIDING
from memr1_jax.models.hf.hf_weights import export_params
from memr1_jax.models.loading import Model
from memr1_jax.options import with_options
from memr1_jax.rl.update import GRPOOptions, TrainState, create_optimizer, create_state, update
from memr1_jax.text.normalize import normalize_text
from memr1_jax.training.build import build_learner, make_policy
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.step import Frozen, Policy, compile_step

CONFIG = DecoderConfig(
    vocab_size=1024,  # more than the tokenizer has, as in published models
    num_layers=2,
    model_width=64,
    num_heads=4,
    num_kv_heads=2,
    head_size=16,
    mlp_width=128,
    max_positions=4096,
    tie_embeddings=False,  # else random weights echo the last token
)
QWEN3 = dataclasses.replace(CONFIG, family=FAMILIES["qwen3"])
GEMMA3 = dataclasses.replace(
    CONFIG,
    family=FAMILIES["gemma3_text"],
    layer_kinds=(SLIDING, FULL),
    window=64,
    sliding_theta=10_000.0,
)
END = "<|im_end|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {
    "data": "synthetic",
    "batch": 2,
    "group": 2,
    "manager_steps": 2,
    "answer_steps": 2,
    "learning_rate": 1e-3,
    "kl_weight": 0.001,
    "constrained": True,
    "memories": 4,
    "neighbours": 2,
    "memories_shown": 4,
    "max_prompt_length": 640,
    "manager_response_length": 40,
    "answer_response_length": 12,
    "memory_width": 24,
    "bank_capacity": 16,
    "facts_per_turn": 2,
    "questions_per_turn": 2,
    "features": 64,
    "synthetic_train": 1,
    "synthetic_eval": 1,
    "synthetic_sessions": 2,
    "synthetic_facts": 3,
    "eval_questions": 3,
    "eval_batch": 2,
    "checkpoint_every": 1,
    "reward": "token_f1",
}
DEMONSTRATED = {"manager_response_length": 56, "answer_response_length": 48}  # lessons fit into it


def write_model(folder: Path, config: DecoderConfig = CONFIG) -> Path:
    """Writes a model with random weights and a tokenizer of 1,000 tokens."""
    tokenizer = _train_tokenizer()
    source = folder.with_name(f"{folder.name}_tokenizer")
    tokenizer.save_pretrained(source)
    return export_params(folder, random_params(config), config, tokenizer_folder=source)


def random_params(config: DecoderConfig = CONFIG) -> dict:
    """Returns random weights by NumPy, which has nothing to compile."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return rng.normal(centre, 0.15, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def tiny_folder() -> Path:
    """Makes the folder of the tiny model once for all tests of this process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return write_model(Path(folder.name) / "tiny")


def options(output: Path | str = "", **changes) -> ExperimentConfig:
    """Options of a small experiment with the tiny model."""
    values = SIZES | {"model": str(tiny_folder()), "output": str(output)} | changes
    return with_options(ExperimentConfig(), **values)


@dataclasses.dataclass(frozen=True)
class Tiny:
    """The tiny model with agents and dialogues around it."""

    options: ExperimentConfig
    model: Model
    models: Models
    conversations: list[Conversation]
    pair: AgentPair

    def encode(self, text: str) -> list[int]:
        """Tokens of a text as it is."""
        return self.model.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, tokens) -> str:
        """Tokens as text, special ones included."""
        return self.model.tokenizer.decode(tokens)


@functools.cache
def make_tiny(**changes) -> Tiny:
    """Builds the pair of agents of the tiny model under changed options."""
    made = options(**changes)
    models = load_models(made)
    with tempfile.TemporaryDirectory() as folder:
        conversations, _ = load_dialogues(made, made.seed, Path(folder))
    pair = build_agent_pair(made, models, conversations)
    return Tiny(made, models.manager, models, conversations, pair)


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return make_tiny()


def bank_of(tiny: Tiny, texts: list[str], times: list[int] | None = None) -> MemoryBank:
    """Returns a bank on the device that holds the texts in slots 0, 1, ..."""
    encoder, sizes = tiny.pair.encoder, tiny.pair.encoder.sizes
    bank = bank_from_facts(
        [encoder.tokenize(text) for text in texts],
        encoder.keys(texts or [""])[: len(texts)],
        times or [0] * len(texts),
        list(range(len(texts))),
        capacity=sizes.bank_capacity,
        width=sizes.memory_width,
    )
    return jax.device_put(bank)


def facts_of(tiny: Tiny, texts: list[str]) -> Facts:
    """Returns the facts of one turn on the device."""
    encoder, count = tiny.pair.encoder, tiny.pair.encoder.sizes.facts
    tokens, length = encoder.rows(texts + [""] * (count - len(texts)), encoder.sizes.memory_width)
    length = np.where(np.arange(count) < len(texts), length, 0).astype(np.int32)
    return jax.device_put(Facts(tokens, length, np.int32(1), np.int32(7)))


def texts_of(tiny: Tiny, bank: MemoryBank) -> dict[int, str]:
    """Returns the live memories of a bank by slot."""
    alive, tokens, length = map(np.asarray, (bank.alive, bank.tokens, bank.length))
    return {int(m): tiny.decode(tokens[m, : length[m]]) for m in np.flatnonzero(alive)}


def row_of(tiny: Tiny, text: str, width: int, stop: bool = True) -> tuple[np.ndarray, int]:
    """Returns a response as a padded row of tokens, and its length."""
    tokens = tiny.encode(text) + list(tiny.model.stop_tokens[:1]) * stop
    assert len(tokens) <= width, f"{len(tokens)} tokens do not fit into {width}"
    return np.pad(np.array(tokens, np.int32), (0, width - len(tokens))), len(tokens)


def word_f1(prediction: str, gold: str) -> float:
    """Returns F1 of the multisets of normalised words, in plain Python."""
    first, second = (Counter(normalize_text(text).split()) for text in (prediction, gold))
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if total else 0.0


def stack(trees):
    """Pytrees as one with a new leading axis."""
    return jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *trees))


@dataclasses.dataclass(frozen=True)
class Training:
    """One agent's compiled step and what goes into it."""

    policy: Policy
    algorithm: GRPOOptions
    optimizer: Any
    step: Callable
    frozen: Frozen
    data: AnswerData | ManagerData | EpisodeData

    @property
    def arguments(self) -> tuple:
        """What the step takes after the state, less the rows."""
        return self.frozen, make_tiny().pair.tools, self.data

    def state(self, seed: int = 0) -> TrainState:
        """Returns a fresh state, which may be donated."""
        return create_state(jax.tree.map(jnp.copy, make_tiny().model.params), self.optimizer, seed)

    def run(self, state: TrainState, rows: list[int], valid: list[bool] | None = None):
        """Runs one step on the given rows of the data."""
        valid = [True] * len(rows) if valid is None else valid
        rows, valid = jnp.array(rows, jnp.int32), jnp.array(valid)
        return self.step(state, *self.arguments, rows, valid)


def episode_data(tiny: Tiny, turns: int = 4, questions: int = 3) -> EpisodeData:
    """Returns two episodes of the dialogue on the device, of four turns and of two."""
    made = [
        episode
        for c in tiny.conversations
        for episode in episodes(dataclasses.replace(c, operations=()), turns, 2)
    ]
    assert [len(episode.turns) for episode in made] == [4, 2]
    data = encode_episodes(tiny.pair.encoder, tiny.conversations, made, turns, questions)
    return jax.device_put(data)


@functools.cache
def make_training(agent: str, horizon: str = "one_step") -> Training:
    """Compiles the step of the tiny model once for all tests of this process."""
    tiny = make_tiny()
    pair, params = tiny.pair, tiny.model.params
    changed = with_options(tiny.options, horizon=horizon)
    policy = make_policy(changed, pair, tiny.models, agent)
    if horizon != "one_step":
        data = episode_data(tiny)
    elif agent == "manager":
        tuples = [item for c in tiny.conversations for item in manager_tuples(c)]
        data = encode_manager_data(pair.encoder, tiny.conversations, tuples)
    else:
        banks = ingest(add_everything, None, pair.tools, pair.encoder, tiny.conversations).banks
        data = encode_answer_data(pair.encoder, tiny.conversations, banks)
    algorithm, optimizer = build_learner(tiny.options, agent).algorithm, create_optimizer(1e-3)
    step = compile_step(update, policy, algorithm, optimizer)
    frozen = Frozen(params, params if agent == "manager" else None)
    data = jax.device_put(data)
    return Training(policy, algorithm, optimizer, step, frozen, data)


@functools.cache
def compile_training(agent: str, horizon: str = "one_step") -> Training:
    """Compiles that step for two rows; the executable refuses any other shape or type.

    It outlives the file that compiled it, for those that share a process; see `conftest`.
    """
    training = make_training(agent, horizon)
    rows, valid = jnp.array([0, 1], jnp.int32), jnp.ones(2, bool)
    program = training.step.lower(training.state(), *training.arguments, rows, valid).compile()
    return dataclasses.replace(training, step=program)


@dataclasses.dataclass(frozen=True)
class Step:
    """One run of a compiled step: the donated state, the new one, metrics and rollout."""

    before: TrainState
    state: TrainState
    metrics: dict
    rollout: Any

    def copy(self) -> TrainState:
        """Returns a copy of the new state, which may be donated."""
        return jax.tree.map(lambda x: x.copy(), self.state)


@functools.cache
def first_step(agent: str, *horizon: str) -> Step:
    """Runs `compile_training`'s step on rows 0 and 1, which many tests look at."""
    training = compile_training(agent, *horizon)
    before = training.state()
    return Step(before, *training.run(before, [0, 1]))


@functools.cache
def _train_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", END],
        show_progress=False,
    )
    prompts = importlib.resources.files("memr1_jax.agents") / "prompts"
    texts = [file.read_text(encoding="utf-8") for file in prompts.iterdir()]
    texts += [json.dumps(record["conversation"]) for record in generate(1, 4)]
    texts += ["yes Yes no No"] * 200  # words that a judge answers with
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, pad_token=END, chat_template=CHATML
    )
