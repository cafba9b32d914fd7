"""Fetches data sets of the Hugging Face hub, which options name as `hf:OWNER/NAME[/FILE]`."""

import json
import os
from pathlib import Path
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.options import user_path
from memr1_jax.run.download import cache_folder, from_hub
from memr1_jax.run.files import write_text_atomic

HUB = "hf:"
_READ = ("*.json", "*.jsonl", "*.csv")
_SPLITS = ("train", "validation", "test")


def local_path(name: str | os.PathLike) -> Path:
    """Returns the file or folder of this machine that a name means.

    A name that begins with `hf:` is fetched into the hub's own cache, and found there without a
    network. After the owner and the name may stand a file, or a split of its tables. If a data set
    has one JSON or CSV file, that is returned, else its folder. One of tables alone (Parquet)
    becomes JSON lines, whose conversations belong to the data set's splits.

    Raises:
      UserError: the hub does not deliver it, or it holds nothing that can be read.
    """
    text = os.fspath(name)
    if not text.startswith(HUB):
        return user_path(text)
    owner, _, rest = text.removeprefix(HUB).partition("/")
    title, _, file = rest.partition("/")
    if not owner or not title:
        raise UserError(f"{text} should read hf:OWNER/NAME or hf:OWNER/NAME/FILE.")
    advice = "Check the spelling, the connection and, for a gated data set, HF_TOKEN."
    folder = from_hub(
        f"{owner}/{title}", [file] if file else list(_READ), f"{text}: {{}}. {advice}", "dataset"
    )
    if file:
        if (folder / file).exists():
            return folder / file
        if Path(file).suffix:
            raise UserError(f"The data set {owner}/{title} of the hub holds no {file}.")
        return _from_tables(f"{owner}/{title}", file)
    found = [path for pattern in _READ for path in sorted(folder.rglob(pattern))]
    if not found:
        return _from_tables(f"{owner}/{title}")
    return found[0] if len(found) == 1 else folder


def one_file(name: str | os.PathLike) -> Path:
    """Returns the file that a name means; UserError where there is none or it is a folder."""
    path = local_path(name)
    if path.is_dir():
        there = ", ".join(
            str(found.relative_to(path))
            for pattern in _READ
            for found in sorted(path.rglob(pattern))[:10]
        )
        raise UserError(
            f"--data_path={name} is a folder{f' with {there}' if there else ''}: name one file."
        )
    if not path.is_file():
        raise UserError(f"There is no file at {path}, where --data_path points.")
    return path


def _from_tables(repository: str, only: str = "") -> Path:
    """Writes the rows of a data set's tables as JSON lines: of all splits, or of the one named."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"The data set {repository} holds tables. Install what reads them with"
            ' pip install "memr1_jax[datasets]", or name a file of JSON as'
            f" hf:{repository}/FILE."
        ) from error
    try:
        loaded = datasets.load_dataset(repository)
        loaded = {only: loaded[only]} if only else loaded
    except Exception as error:  # a damaged or odd data set surfaces as nearly any type of exception
        raise UserError(
            f"hf:{repository} holds no file of JSON, and its tables cannot be read: {error}"
        ) from error
    lines = []
    for split, rows in loaded.items():
        belongs = {"split": split} if len(loaded) > 1 and split in _SPLITS else {}
        lines += [json.dumps(belongs | _present(row), default=str) for row in rows]
    name = "--".join(filter(None, (*repository.split("/"), only)))
    path = cache_folder() / "datasets" / f"{name}.jsonl"
    write_text_atomic(path, "".join(f"{line}\n" for line in lines))
    return path


def _present(value: Any) -> Any:
    """Drops the fields without a value, which a table's rows have and JSON's need not."""
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_present(item) for item in value]
    return value
