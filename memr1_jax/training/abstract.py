"""An experiment's train step with shapes in place of weights and data."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memr1_jax.agents.ingest import add_everything, ingest
from memr1_jax.agents.rollout import FrozenAnswerer
from memr1_jax.data.encode import encode_answer_data, encode_manager_data
from memr1_jax.data.tuples import manager_tuples
from memr1_jax.models.config import PRESETS, DecoderConfig
from memr1_jax.models.decoder import Decoder, init_params
from memr1_jax.models.folders import read_json
from memr1_jax.models.hf_config import config_from_hf
from memr1_jax.models.sources import SMOLLM2, resolve_model
from memr1_jax.models.tokenizer import load_tokenizer, stop_tokens
from memr1_jax.rl.update import GRPO, create_optimizer, create_state
from memr1_jax.training.config import ExperimentConfig, check_options
from memr1_jax.training.step import Frozen, Policy
from memr1_jax.training.workbench import Model, build_workbench, compute_dtype, load_dialogues

ROWS = 512  # of the resident data; about what LoCoMo gives to train on


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """What `make_train_step` needs, and the shapes of its step's arguments."""

    policy: Policy
    algorithm: GRPO
    optimizer: Any
    arguments: tuple  # state, frozen, tools, data, rows, valid


def abstract_step(options: ExperimentConfig, algorithm: GRPO, agent: str) -> AbstractStep:
    """The train step of "manager" or "answer" under `options`, without weights.

    A model that `PRESETS` lists is taken from there, with SmolLM2's tokenizer in place of its own:
    the vocabulary keeps the model's size. Others are folders, of which only the configuration and
    the tokenizer are read. The data are a few generated dialogues, counted as `ROWS` rows.

    Raises:
      UserError: the model or the options are not usable.
    """
    check_options(options)
    model = _model(options.model, options)
    answer_model = _model(options.answer_model or options.model, options)
    generated = dataclasses.replace(
        options,
        **{"data": "synthetic", "synthetic_train": 1, "synthetic_eval": 1},
        **{"train_split": "train", "eval_split": "validation"},
    )
    with tempfile.TemporaryDirectory() as folder:
        dialogues, _ = load_dialogues(generated, options.seed, Path(folder))
    bench = build_workbench(options, model, dialogues)
    if agent == "manager":
        tuples = [item for dialogue in dialogues for item in manager_tuples(dialogue)]
        data = encode_manager_data(bench.encoder, dialogues, tuples)
        answerer = FrozenAnswerer(bench.answerer, answer_model.decoder)
        policy = Policy(bench.manager, model.decoder, answerer)
        base, frozen = model.params, Frozen(None, answer_model.params)
    else:
        banks = ingest(add_everything, None, bench.tools, bench.encoder, dialogues).banks
        data = encode_answer_data(bench.encoder, dialogues, banks)
        policy = Policy(bench.answerer, answer_model.decoder)
        base, frozen = answer_model.params, Frozen(None, None)
    if options.kl_weight:
        frozen = frozen.replace(reference=base)
    optimizer = create_optimizer(
        options.learning_rate,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        clip=options.gradient_clip,
    )
    state = jax.eval_shape(lambda params: create_state(params, optimizer, options.seed), base)
    rows = jax.ShapeDtypeStruct((options.batch,), np.int32)
    valid = jax.ShapeDtypeStruct((options.batch,), bool)
    arguments = (state, frozen, bench.tools, _stretched(data), rows, valid)
    return AbstractStep(policy, algorithm, optimizer, jax.tree.map(_shape, arguments))


def _model(name, options):
    """A model whose parameters are shapes."""
    preset = name.rsplit("/", 1)[-1].lower().removesuffix("-instruct")
    if preset in PRESETS and not Path(name).exists():
        config, folder = PRESETS[preset], resolve_model(SMOLLM2)
    else:
        folder = resolve_model(name)
        config = config_from_hf(read_json(folder / "config.json"))
    tokenizer = load_tokenizer(folder)
    decoder = Decoder(config, compute_dtype(options.dtype), options.remat)
    params = abstract_params(config)
    return Model(folder, config, decoder, params, tokenizer, stop_tokens(folder, tokenizer))


def abstract_params(config: DecoderConfig) -> dict:
    """Shapes of the decoder's parameters."""
    return jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))


def _stretched(data):
    """The data as if they had `ROWS` rows."""
    rows = data.rows
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (ROWS if x.shape[:1] == (rows,) else x.shape[0], *x.shape[1:]), x.dtype
        ),
        data,
    )


def _shape(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
