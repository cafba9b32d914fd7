"""Folders of LoRA adapters used like models: merged into their base model once, in the cache."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.models.hf.folders import (
    ADAPTERS,
    RETRIEVAL,
    SETTINGS,
    folder_digest,
    read_json,
)
from memr1_jax.models.hf.hf_weights import export_params, load_params
from memr1_jax.models.hf.peft import load_adapters
from memr1_jax.models.lora import merge
from memr1_jax.run.download import cache_folder


def merged_folder(
    folder: Path, resolve: Callable[[str], Path], cache: str | os.PathLike | None = None
) -> Path:
    """Returns a model folder that computes what the adapters in `folder` make of their base model.

    Kept in `cache` under the digests of both. Settings of an agent come along.

    Args:
      folder: of the peft library.
      resolve: finds the folder of the base model that the adapters name.
      cache: by default `MEMR1_CACHE` or ~/.cache/memr1_jax.

    Raises:
      UserError: the base model is not named or not found, or the adapters are not of it.
    """
    name = read_json(folder / ADAPTERS).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{folder / ADAPTERS} does not name its base model. Add base_model_name_or_path."
        )
    base = resolve(name)
    word = folder_digest(folder, start=folder_digest(base))
    target = Path(cache or cache_folder()) / "merged" / word
    if not (target / "config.json").is_file():
        params, config = load_params(base)
        adapters, lora = load_adapters(folder, config)
        whole = merge(params, adapters, np.float32(lora.scale))
        export_params(target, whole, config, tokenizer_folder=base)
    for extra in (SETTINGS, RETRIEVAL):
        if (folder / extra).is_file():
            shutil.copyfile(folder / extra, target / extra)
    return target
