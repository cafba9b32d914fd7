"""What an experiment names, loaded: models onto the devices, dialogues into memory."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from memr1_jax.data.locomo import find_locomo, load_conversations, split
from memr1_jax.data.own_dialogues import load_own_dialogues, turns_as_facts
from memr1_jax.data.synthetic import write_synthetic
from memr1_jax.data.types import Conversation, Question
from memr1_jax.errors import UserError
from memr1_jax.models.config import DecoderConfig
from memr1_jax.models.decoder import Decoder
from memr1_jax.models.finite import check_finite
from memr1_jax.models.hf.hf_weights import load_params, load_sharded
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.models.hf.tokenizer import check_tokenizer, load_tokenizer, stop_tokens
from memr1_jax.options import user_path
from memr1_jax.parallel.distributed import barrier, is_main
from memr1_jax.training.config import AgentConfig, DataConfig, ExperimentConfig


@dataclasses.dataclass(frozen=True)
class Model:
    """A language model on the devices; `params` are in the formats of `models/precision.py`."""

    folder: Path
    config: DecoderConfig
    decoder: Decoder
    params: dict
    tokenizer: Any
    stop_tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Models:
    """Who acts, who answers and who judges; they may be one and the same model."""

    manager: Model
    answerer: Model
    judge: Model | None

    def of(self, agent: str) -> Model:
        """The model of "manager" or "answer"."""
        return self.manager if agent == "manager" else self.answerer


def compute_dtype(name: str):
    """The number format `name` stands for; "auto" is float32 on a CPU, where bfloat16 is slow."""
    if name == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(name)


def load_model(name: str, options: AgentConfig, mesh: Mesh | None = None) -> Model:
    """Loads a model by folder, hub name or `smollm2-135m-q4`; UserError where that fails.

    On a mesh every process reads its own share of the weights.
    """
    folder = resolve_model(name)
    dtype = compute_dtype(options.dtype)
    params, config = read_params(folder, mesh, dtype)
    check_finite(params, f"The model in {folder}", "Use another model, or download it again.")
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, config, folder)
    decoder = Decoder(config, dtype, options.remat)
    return Model(folder, config, decoder, params, tokenizer, stop_tokens(folder, tokenizer))


def read_params(folder: Path, mesh: Mesh | None, dtype: Any) -> tuple[dict, DecoderConfig]:
    """Parameters on the devices, on a mesh by the rules of `parallel/rules.py`, and the config."""
    if mesh is not None:
        return load_sharded(folder, mesh, dtype=dtype)
    params, config = load_params(folder, dtype=dtype)
    return jax.tree.map(jnp.asarray, params), config


def find_dialogues(options: DataConfig, seed: int, folder: Path, again: bool = False) -> Path:
    """Return the file of dialogues that the options name; generated ones are written first.

    Args:
      options: where dialogues come from.
      seed: of generated ones.
      folder: of the run, where these are written.
      again: generate them even where the folder has some, left by a start that came to nothing.
    """
    if options.data == "own":
        if not options.data_path:
            raise UserError(
                "--data=own needs --data_path: a file of JSON lines as experiments/README.md shows"
                " it."
            )
        path = Path(options.data_path)
        if not path.is_file():
            raise UserError(f"There is no file at {path}, where --data_path points.")
        return path
    if options.data == "locomo":
        return find_locomo(options.data_path or None)
    path = folder / "dialogues.json"
    if is_main():
        if again or not path.exists():
            counts = {"train": options.synthetic_train, "validation": 0, "test": 0}
            counts[options.eval_split] = options.synthetic_eval
            write_synthetic(
                path,
                seed,
                **counts,
                num_sessions=options.synthetic_sessions,
                facts_per_session=options.synthetic_facts,
                changes=options.synthetic_changes,
                endings=options.synthetic_endings,
                repeats=options.synthetic_repeats,
                relative_dates=options.synthetic_relative_dates,
            )
    barrier("dialogues")
    return path


def load_dialogues(
    options: DataConfig, seed: int, folder: Path, *, learn: bool = True
) -> tuple[list[Conversation], list[Conversation]]:
    """Load training and evaluation conversations; generated ones are written to the run folder.

    Where dialogues note no facts, their turns stand for them. With `learn`, one's own training
    conversations keep the questions that have an answer: no reward tells how to abstain.

    Raises:
      UserError: the data cannot be read, or with `learn` all training questions abstain.
    """
    path = find_dialogues(options, seed, folder)
    if options.data == "own":
        train, evaluation = _own_dialogues(options)
        return _answerable(options, train) if learn else train, evaluation
    conversations = load_conversations(path)
    if unnoted := sum(not conversation.facts for conversation in conversations):
        warnings.warn(
            f"{path} notes no facts for {unnoted} of {len(conversations)} conversations, so their"
            " turns stand for them.",
            stacklevel=2,
        )
        conversations = list(map(turns_as_facts, conversations))
    return split(conversations, options.train_split), split(conversations, options.eval_split)


def _own_dialogues(options: DataConfig) -> tuple[list[Conversation], list[Conversation]]:
    loaded = load_own_dialogues(
        user_path(options.data_path), options.session_gap, options.drop_unknown_turns
    )
    conversations = list(map(turns_as_facts, loaded))
    amid = sum(not _asked_at_the_end(c, q) for c in conversations for q in c.questions)
    if amid:
        warnings.warn(
            f'Questions of {options.data_path} that "after" asks amid the dialogue are left out:'
            f" {amid}.",
            stacklevel=2,
        )
        conversations = [
            dataclasses.replace(
                c, questions=tuple(q for q in c.questions if _asked_at_the_end(c, q))
            )
            for c in conversations
        ]
    if not any(conversation.split for conversation in conversations):
        warnings.warn(
            f'No conversation of {options.data_path} has a "split", so all are learned from and'
            " evaluated on. Scores on what was learned from say little.",
            stacklevel=2,
        )
        return conversations, conversations
    return split(conversations, options.train_split), split(conversations, options.eval_split)


def _answerable(options: DataConfig, train: list[Conversation]) -> list[Conversation]:
    """Leave out questions whose right answer is that the dialogue does not say."""
    kept = [
        dataclasses.replace(c, questions=tuple(q for q in c.questions if not q.abstain))
        for c in train
    ]
    left_out = sum(q.abstain for c in train for q in c.questions)
    if left_out and not any(conversation.questions for conversation in kept):
        raise UserError(
            f"{options.data_path}: there is nothing to learn from. All {left_out} questions of the"
            ' training conversations abstain ("abstain" or category 5): their right answer is that'
            " the dialogue does not say. Add questions with an answer, or choose another"
            " --train_split."
        )
    if left_out:
        warnings.warn(
            f"Questions of {options.data_path} whose right answer is that the dialogue does not say"
            f" are left out of training: {left_out}.",
            stacklevel=3,
        )
    return kept


def _asked_at_the_end(conversation: Conversation, question: Question) -> bool:
    return question.after in (None, len(conversation.turns))


def load_models(options: AgentConfig, mesh: Mesh | None = None) -> Models:
    """The models of the manager, of the Answer Agent and, where it gives the reward, of the judge.

    Raises:
      UserError: their tokenizers differ; memories and answers travel between them as tokens.
    """
    loaded = {options.model: load_model(options.model, options, mesh)}

    def find(flag):
        name = getattr(options, flag, "") or options.model
        if name not in loaded:
            loaded[name] = load_model(name, options, mesh)
        check_same_tokens(loaded[name].tokenizer, loaded[options.model].tokenizer, flag, options)
        return loaded[name]

    judged = isinstance(options, ExperimentConfig) and options.reward.outcome == "judge"
    return Models(find("model"), find("answer_model"), find("judge_model") if judged else None)


def check_same_tokens(tokenizer: Any, other: Any, flag: str, options: AgentConfig) -> None:
    """Raises UserError where the model that `flag` names has another vocabulary than `--model`."""
    if tokenizer is not other and tokenizer.get_vocab() != other.get_vocab():
        raise UserError(
            f"--{flag}={getattr(options, flag)} has another tokenizer than --model={options.model}."
            " Memories travel between the agents as tokens: use models of one family."
        )
