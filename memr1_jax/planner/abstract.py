"""An experiment's train step with shapes in place of weights and data."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memr1_jax.agents.agent_pair import Models, build_agent_pair
from memr1_jax.agents.ingest import add_everything, ingest
from memr1_jax.data.dialogues import load_dialogues
from memr1_jax.models.decoder import Decoder, init_params
from memr1_jax.models.decoder_config import PRESETS, DecoderConfig
from memr1_jax.models.hf.hf_config import read_config
from memr1_jax.models.hf.sources import SMOLLM2, resolve_model
from memr1_jax.models.hf.tokenizer import load_tokenizer, stop_tokens
from memr1_jax.models.loading import Model, compute_dtype
from memr1_jax.models.precision import cast_weights
from memr1_jax.training.build import build_learner, make_frozen, make_policy, trainable, untrained
from memr1_jax.training.config import ExperimentConfig, check_options
from memr1_jax.training.step import Policy
from memr1_jax.training.training_data import (
    answer_data,
    extractor_data,
    manager_data,
    with_demonstrations,
)

ROWS = 512  # of the resident data; about what LoCoMo gives to train on


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """A policy, its train step, and the shapes of its arguments.

    These are state, frozen, tools, data, rows and valid.
    """

    policy: Policy
    step: Any
    arguments: tuple


def abstract_step(options: ExperimentConfig, agent: str) -> AbstractStep:
    """Builds the train step of "manager", "answer" or "extractor" under `options`, without weights.

    A model that `PRESETS` lists is taken from there, with SmolLM2's tokenizer in place of its own:
    the vocabulary keeps the model's size. Others are folders; only their configuration and
    tokenizer are read. The data are a few generated dialogues, counted as `ROWS` rows.

    Raises:
      UserError: the model or the options are not usable.
    """
    check_options(options)
    models = _models(options)
    generated = dataclasses.replace(
        options,
        **{"data": "synthetic", "synthetic_train": 1, "synthetic_eval": 1},
        **{"train_split": "train", "eval_split": "validation"},
    )
    with tempfile.TemporaryDirectory() as folder:
        dialogues, _ = load_dialogues(generated, options.seed, Path(folder))
    pair = build_agent_pair(options, models, dialogues)
    given = (pair, models, dialogues)
    if agent == "answer":
        banks = ingest(add_everything, None, pair.tools, pair.encoder, dialogues).banks
        make = lambda options: answer_data(options, *given, banks)  # noqa: E731
    else:
        encode = manager_data if agent == "manager" else extractor_data
        make = lambda options: encode(options, *given)  # noqa: E731
    data = with_demonstrations(options, make(options), make)
    learner, model = build_learner(options, agent), models.of(agent)
    # Parameters are an argument, as shapes cannot be closed over.
    state = jax.eval_shape(
        lambda params: learner.create_state(
            trainable(options, dataclasses.replace(model, params=params), agent),
            options.seed,
            model.config.model_width,
        ),
        model.params,
    )
    frozen = make_frozen(options, models, agent, untrained(options, models.answerer))
    rows = jax.ShapeDtypeStruct((options.batch,), np.int32)
    valid = jax.ShapeDtypeStruct((options.batch,), bool)
    arguments = (state, frozen, pair.tools, _stretched(data), rows, valid)
    policy = make_policy(options, pair, models, agent)
    return AbstractStep(policy, learner.make_step(policy), jax.tree.map(_shape, arguments))


def _models(options):
    """Makes the models of all roles, each name once."""
    made = {}

    def find(name):
        name = name or options.model
        if name not in made:
            made[name] = _model(name, options)
        return made[name]

    judge = find(options.judge_model) if options.reward.outcome == "judge" else None
    return Models(find(options.model), find(options.answer_model), judge)


def _model(name, options):
    """Makes a model whose parameters are shapes."""
    preset = name.rsplit("/", 1)[-1].lower().removesuffix("-instruct")
    if preset in PRESETS and not Path(name).exists():
        config, folder = PRESETS[preset], resolve_model(SMOLLM2)
    else:
        folder = resolve_model(name)
        config = read_config(folder)
    tokenizer = load_tokenizer(folder)
    dtype = compute_dtype(options.dtype)
    decoder = Decoder(config, dtype, options.remat)
    params = cast_weights(abstract_params(config), dtype)
    return Model(folder, config, decoder, params, tokenizer, stop_tokens(folder, tokenizer))


def abstract_params(config: DecoderConfig) -> dict:
    """Returns the shapes of the decoder's parameters."""
    return jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))


def _stretched(data):
    """Stretches the shapes of the data to `ROWS` rows."""
    rows = data.rows
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (ROWS if x.shape[:1] == (rows,) else x.shape[0], *x.shape[1:]), x.dtype
        ),
        data,
    )


def _shape(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
