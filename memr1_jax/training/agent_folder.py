"""What an exported agent needs besides its weights: sizes, prompts and word statistics.

An exported folder is an ordinary Hugging Face model with two files more: `memr1_jax.json` holds the
options of the agents as they were trained, `retrieval.safetensors` the embedder.
"""

import dataclasses
from pathlib import Path
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.memory.embedder import Embedder
from memr1_jax.memory.embedder_file import read_embedder, write_embedder
from memr1_jax.options import check
from memr1_jax.run.files import write_json_atomic
from memr1_jax.run.json_files import loads
from memr1_jax.run.records import typed
from memr1_jax.training.config import AgentConfig

SETTINGS = "memr1_jax.json"
RETRIEVAL = "retrieval.safetensors"
# Where the facts come from that a manager is shown: what the data noted, each turn or each sentence
# as it stands, or what the model itself extracts from a turn.
FACTS = ("noted", "turns", "sentences", "extracted")
_NOT_KEPT = ("model", "answer_model", "dtype", "remat")  # those of the machine and of the start


@dataclasses.dataclass(frozen=True)
class AgentSettings:
    """How the agents of a folder were trained: option values by name, and the source of facts."""

    options: dict[str, Any]
    facts: str
    embedder: Embedder | None


def write_settings(
    folder: Path, options: AgentConfig, facts: str, embedder: Embedder | None
) -> None:
    """Writes both files into an exported model folder."""
    kept = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(AgentConfig)
        if field.name not in _NOT_KEPT
    }
    if embedder is not None:
        write_embedder(folder / RETRIEVAL, embedder)
    write_json_atomic(folder / SETTINGS, {"options": kept, "facts": facts})


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
        if facts not in FACTS or not options.keys().isdisjoint(_NOT_KEPT):
            raise ValueError(f"unknown: {facts} of {', '.join(options)}")
    except (OSError, ValueError, TypeError, KeyError, UserError) as error:
        raise UserError(
            f"{path} does not say how these agents are used ({error}). It may be damaged or of a"
            " later version of memr1_jax; delete it to give the options yourself."
        ) from error
    statistics = folder / RETRIEVAL
    return AgentSettings(
        options, facts, read_embedder(statistics) if statistics.is_file() else None
    )
