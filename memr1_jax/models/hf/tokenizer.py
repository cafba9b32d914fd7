"""The tokenizer of a model folder."""

import os
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.models.config import DecoderConfig
from memr1_jax.models.hf.folders import read_json


def load_tokenizer(folder: str | os.PathLike):
    """Loads the transformers tokenizer of a local folder; UserError where there is none to load.

    Nothing is fetched and no code of the folder is run.
    """
    # Else transformers advises on its import that PyTorch be installed.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    if not Path(folder).is_dir():
        raise UserError(f"There is no folder {folder} to load a tokenizer from.")
    try:
        return AutoTokenizer.from_pretrained(
            os.fspath(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise UserError(
            f"{folder} holds no tokenizer that transformers can load ({error}). It needs "
            "tokenizer.json and tokenizer_config.json."
        ) from error


def check_tokenizer(tokenizer, config: DecoderConfig, folder: str | os.PathLike) -> None:
    """Raises UserError unless the tokenizer fits the model and can hold a chat."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.vocab_size:
        raise UserError(
            f"The tokenizer in {folder} has token ids up to {largest}, but the model's vocabulary "
            f"has {config.vocab_size} entries. They belong to different models."
        )
    if not tokenizer.chat_template:
        raise UserError(
            f"The tokenizer in {folder} has no chat template. Take an instruction-tuned model, or "
            "add chat_template to tokenizer_config.json."
        )
    if not stop_tokens(folder, tokenizer):
        raise UserError(
            f"Neither the tokenizer nor generation_config.json in {folder} names an end token. "
            "Add eos_token to tokenizer_config.json."
        )


def stop_tokens(folder: str | os.PathLike, tokenizer) -> tuple[int, ...]:
    """Returns the sorted ids that end a response: those of generation_config.json and eos_token."""
    path = Path(folder) / "generation_config.json"
    stops = read_json(path).get("eos_token_id") if path.is_file() else None
    stops = stops if isinstance(stops, list) else [stops]
    return tuple(sorted({stop for stop in [*stops, tokenizer.eos_token_id] if stop is not None}))
