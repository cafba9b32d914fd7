"""Files of a model: configuration, weights, tokenizer, adapters, word statistics, a prompt."""

import importlib.resources
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tiny_model import CONFIG, random_params, tiny_folder

from memr1_jax.agents.prompt_files import read_prompt
from memr1_jax.memory.embedder import HashedWords
from memr1_jax.memory.embedder_file import read_embedder, write_embedder
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.hf.hf_config import read_config
from memr1_jax.models.hf.hf_weights import export_params, load_params
from memr1_jax.models.hf.peft import export_adapters, load_adapters
from memr1_jax.models.hf.tokenizer import check_tokenizer, load_tokenizer, stop_tokens
from memr1_jax.models.lora import LoRA, init_adapters

_SMALL = DecoderConfig(
    vocab_size=8,
    num_layers=1,
    model_width=8,
    num_heads=2,
    num_kv_heads=1,
    head_size=4,
    mlp_width=8,
    max_positions=64,
    tie_embeddings=False,
)
_LORA = LoRA(2, 4.0, ("query", "value"))


def _write_model(folder: Path) -> None:
    export_params(folder, random_params(_SMALL), _SMALL)


def _write_shards(folder: Path) -> None:
    export_params(folder, random_params(_SMALL), _SMALL, max_shard_bytes=600)


def _write_adapters(folder: Path) -> None:
    import jax

    adapters = jax.tree.map(np.asarray, init_adapters(_SMALL, _LORA, jax.random.key(0)))
    folder.rmdir()
    export_adapters(folder, adapters, _LORA, _SMALL, "base")


def _write_embedder(folder: Path) -> None:
    from tiny_model import make_tiny

    embedder = make_tiny().pair.tools.embedder
    assert isinstance(embedder, HashedWords)
    write_embedder(folder / "retrieval.safetensors", embedder)


_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "config.json")


def _write_tokenizer(folder: Path) -> None:
    for name in _TOKENIZER_FILES:
        (folder / name).write_bytes((tiny_folder() / name).read_bytes())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = tiny_folder() / "chat_template.jinja"
    if template.is_file():
        (folder / "chat_template.jinja").write_bytes(template.read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 0]}))


def _read_tokenizer(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, CONFIG, folder)
    assert stop_tokens(folder, tokenizer)


_PROMPT = "manager_compact.txt"


def _write_prompt(folder: Path) -> None:
    source = importlib.resources.files("memr1_jax.agents") / "prompts" / _PROMPT
    (folder / _PROMPT).write_bytes(source.read_bytes())


Files = tuple[Callable[[Path], None], Callable[[Path], object], tuple[str, ...]]
MODELS: dict[str, Files] = {
    "model": (_write_model, load_params, ("config.json", "model.safetensors")),
    "model_index": (
        _write_shards,
        lambda folder: load_params(folder, read_config(folder)),
        ("model.safetensors.index.json", "config.json"),
    ),
    "adapters": (
        _write_adapters,
        lambda folder: load_adapters(folder, _SMALL),
        ("adapter_config.json", "adapter_model.safetensors"),
    ),
    "embedder": (
        _write_embedder,
        lambda folder: read_embedder(folder / "retrieval.safetensors"),
        ("retrieval.safetensors",),
    ),
    "tokenizer": (
        _write_tokenizer,
        _read_tokenizer,
        (*_TOKENIZER_FILES, "generation_config.json", "chat_template.jinja"),
    ),
    "prompt_file": (
        _write_prompt,
        lambda folder: read_prompt(str(folder / _PROMPT), "manager"),
        (_PROMPT,),
    ),
}
