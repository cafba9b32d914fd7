"""Loads a language model onto the devices: weights, network, tokenizer."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from memr1_jax.models.attention_kernels import choose_kernel
from memr1_jax.models.decoder import Decoder
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.finite import check_finite
from memr1_jax.models.hf.hf_weights import load_params, load_sharded
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.models.hf.tokenizer import check_tokenizer, load_tokenizer, stop_tokens


@dataclasses.dataclass(frozen=True)
class Model:
    """A language model on the devices; `params` are in the formats of `models/precision.py`."""

    folder: Path
    config: DecoderConfig
    decoder: Decoder
    params: dict
    tokenizer: Any
    stop_tokens: tuple[int, ...]


def compute_dtype(name: str):
    """Returns the number format `name`; "auto" is float32 on a CPU, where bfloat16 is slow."""
    if name == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(name)


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    remat: str = "none",
    attention: str = "auto",
    mesh: Mesh | None = None,
) -> Model:
    """Loads a model by folder, hub name or `smollm2-135m-q4`; UserError where that fails.

    On a mesh every process reads its own share of the weights. `dtype`, `remat` and `attention` are
    the values of the flags of these names.
    """
    folder = resolve_model(name)
    number_format = compute_dtype(dtype)
    kernel = choose_kernel(attention, number_format)
    params, config = read_params(folder, mesh, number_format)
    check_finite(params, f"The model in {folder}", "Use another model, or download it again.")
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, config, folder)
    decoder = Decoder(config, number_format, remat, kernel)
    return Model(folder, config, decoder, params, tokenizer, stop_tokens(folder, tokenizer))


def read_params(folder: Path, mesh: Mesh | None, dtype: Any) -> tuple[dict, DecoderConfig]:
    """Reads parameters onto the devices, on a mesh by `parallel/rules.py`, and the config."""
    if mesh is not None:
        return load_sharded(folder, mesh, dtype=dtype)
    params, config = load_params(folder, dtype=dtype)
    return jax.tree.map(jnp.asarray, params), config
