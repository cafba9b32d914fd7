"""Files of an exported agent other than its weights: sizes, prompts and word statistics.

An exported folder is an ordinary Hugging Face model with two more files: `memr1_jax.json` holds the
options of the agents as they were trained, `retrieval.safetensors` the embedder.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.extractor import ExtractorOptions
from memr1_jax.errors import UserError
from memr1_jax.memory.embedder import Embedder
from memr1_jax.memory.embedder_file import read_embedder, write_embedder
from memr1_jax.models.hf.folders import RETRIEVAL, SETTINGS
from memr1_jax.models.hf.sources import local_folder
from memr1_jax.options import (
    Record,
    as_flags,
    changed_flags,
    check,
    flag_values,
    with_options,
)
from memr1_jax.run.files import write_json_atomic
from memr1_jax.run.json_files import loads
from memr1_jax.run.typed_records import typed

# Sources of the facts that a manager is shown: those noted in the data, each turn or each sentence
# as it stands, or those that the model itself extracts from a turn.
FACTS = ("noted", "turns", "sentences", "extracted")
# Those of the machine and of the start.
_NOT_KEPT = ("model", "answer_model", "model_settings", "dtype", "remat", "attention")
_EXTRACTION = ("model", "prompt", "turn_width", "response_length")


@dataclasses.dataclass(frozen=True)
class AgentSettings:
    """Says how a folder's agents were trained: option values by name, and the source of facts.

    `extraction` holds model, prompt and sizes of the extractor; None where the folder does not say.
    """

    options: dict[str, Any]
    facts: str
    embedder: Embedder | None
    extraction: ExtractorOptions | None = None


def write_settings(
    folder: Path,
    options: AgentConfig,
    facts: str,
    embedder: Embedder | None,
    extraction: ExtractorOptions | None = None,
) -> None:
    """Writes both files into an exported model folder; `extraction` where facts are extracted."""
    kept = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(AgentConfig)
        if field.name not in _NOT_KEPT
    }
    if embedder is not None:
        write_embedder(folder / RETRIEVAL, embedder)
    settings: dict[str, Any] = {"options": kept, "facts": facts}
    if extraction is not None and facts == "extracted":
        settings["extraction"] = {name: getattr(extraction, name) for name in _EXTRACTION}
    write_json_atomic(folder / SETTINGS, settings)


def read_settings(folder: Path) -> AgentSettings | None:
    """Reads what `write_settings` wrote; None where a model folder has no such file.

    Raises:
      UserError: the file is damaged or of a later version.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return None
    try:
        written = loads(path.read_bytes())
        options, facts = written["options"], written["facts"]
        check(typed(AgentConfig, options, "options"))
        extraction = None
        if (found := written.get("extraction")) is not None:
            extraction = typed(ExtractorOptions, found, "extraction")
            check(extraction)
        if facts not in FACTS or not options.keys().isdisjoint(_NOT_KEPT):
            raise ValueError(f"unknown: {facts} of {', '.join(options)}")
    except (OSError, ValueError, TypeError, KeyError, UserError) as error:
        raise UserError(
            f"{path} does not say how these agents are used ({error}). It may be damaged or of a"
            " later version of memr1_jax; delete it to give the options yourself."
        ) from error
    statistics = folder / RETRIEVAL
    embedder = read_embedder(statistics) if statistics.is_file() else None
    return AgentSettings(options, facts, embedder, extraction)


def with_model_settings(
    options: Record, given: Iterable[str] | None = None, say: Callable = print
) -> Record:
    """Takes prompts and sizes from the model's folder, but for those that were given.

    `model_settings` is then false: a run does and records exactly what the options say.

    Args:
      options: any options; those without a model, or of one whose folder has no settings, are
        returned as they are.
      given: flags that win; None: those that are not at their default.
      say: called with a line on what was taken.

    Raises:
      UserError: the settings are damaged.
    """
    if not (isinstance(options, AgentConfig) and options.model_settings):
        return options
    folder = local_folder(options.model)
    settings = read_settings(folder) if folder is not None else None
    if settings is None:
        return options
    values = flag_values(options)
    given = set(changed_flags(options) if given is None else given)
    taken = {
        name: value
        for name, value in settings.options.items()
        if name not in given and value != values[name]
    }
    if taken:
        say(f"As --model={options.model} was trained: {' '.join(as_flags(taken))}.")
    return with_options(options, model_settings=False, **taken)
