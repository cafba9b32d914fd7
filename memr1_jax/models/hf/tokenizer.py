"""The tokenizer of a model folder."""

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.hf.chat_template import render_messages
from memr1_jax.models.hf.folders import read_json
from memr1_jax.text.plain import inside

# Read by transformers besides tokenizer.json; checked first for errors that name the file.
_JSON_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
)


def load_tokenizer(folder: str | os.PathLike):
    """Loads the transformers tokenizer of a local folder; UserError where there is none to load.

    Nothing is fetched and no code of the folder is run.
    """
    # Else transformers advises on its import that PyTorch be installed.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    if not Path(folder).is_dir():
        raise UserError(f"There is no folder {folder} to load a tokenizer from.")
    for name in _JSON_FILES:
        if (Path(folder) / name).is_file():
            read_json(Path(folder) / name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            os.fspath(folder), local_files_only=True, trust_remote_code=False
        )
        tokenizer.encode("Some settings fail only here.")
        return tokenizer
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # on a broken file tokenizers raises any, or panics
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
    stops = stop_tokens(folder, tokenizer)
    if not stops:
        raise UserError(
            f"Neither the tokenizer nor generation_config.json in {folder} names an end token. "
            "Add eos_token to tokenizer_config.json."
        )
    if turn_end(tokenizer) is None:
        warnings.warn(
            f"The chat template in {folder} ends the assistant's turns with no control token, so a "
            "response ends only where the model writes its end token, or at the limit of its "
            "length.",
            stacklevel=2,
        )
    if stops[-1] >= config.vocab_size:
        raise UserError(
            f"{folder} names the end token {stops[-1]}, but the model's vocabulary has "
            f"{config.vocab_size} entries. Correct eos_token_id in generation_config.json."
        )


def stop_tokens(folder: str | os.PathLike, tokenizer) -> tuple[int, ...]:
    """Returns the sorted ids that end a response.

    They are the tokenizer's `eos_token`, the `eos_token_id` of generation_config.json (of
    config.json where there is none, as in transformers) and what ends a turn of the chat template.
    There are none where only the template has one: other programs would not stop at it.
    Raises UserError where an id is invalid, or the template cannot be rendered.
    """
    named = {*_eos_ids(Path(folder)), tokenizer.eos_token_id} - {None}
    try:
        turn = {turn_end(tokenizer)} - {None}
    except ValueError as error:
        raise UserError(
            f"The chat template in {folder} does not render a short dialogue ({error}). Take "
            "another model, or correct the template."
        ) from error
    return tuple(sorted(named | turn)) if named else ()


def turn_end(tokenizer) -> int | None:
    """Returns the special token with which the chat template ends the assistant's turns, if any.

    Raises ValueError where the template cannot be rendered.
    """
    if not tokenizer.chat_template:
        return None
    said = "yes indeed"
    dialogue = [("user", "hello"), ("assistant", said)]
    rendered = render_messages(tokenizer, dialogue, add_generation_prompt=False)
    _, found, after = rendered.rpartition(said)
    ids = tokenizer.encode(after.strip(), add_special_tokens=False) if found else []
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None


def inner_encoder(tokenizer) -> Callable[[str], list[int]]:
    """Returns a function that tokenises a piece of a rendered template, control tokens included.

    The piece is taken as it stands inside a longer text, see `text.plain.inside`.
    """
    return inside(functools.partial(tokenizer.encode, add_special_tokens=False))


def _eos_ids(folder: Path) -> list[int]:
    """Reads the end tokens of generation_config.json, or of config.json."""
    names = ("generation_config.json", "config.json")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    value = read_json(path).get("eos_token_id") if path else None
    ids = value if isinstance(value, list) else [value] * (value is not None)
    if wrong := [i for i in ids if type(i) is not int or i < 0]:
        raise UserError(
            f"{path} gives {wrong[0]!r:.80} as eos_token_id. It must be the number of a token, or "
            "a list of such numbers."
        )
    return ids
