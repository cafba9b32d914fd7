"""The models of a table: backbones and trained agents, each loaded when it is first asked for."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jax.sharding import Mesh

from memr1_jax.bench.reply_cache import model_digest
from memr1_jax.bench.systems.registry import BASE, split_row
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.errors import UserError
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.models.loading import Model, compute_dtype, load_model
from memr1_jax.options import user_path

AGENTS = ("manager", "answer")


class Models(Mapping):
    """The backbone as "base", trained agents as in "manager@grpo"."""

    def __init__(self, model: str, agents: Mapping[str, str], dtype: str, mesh: Mesh | None):
        """Loads nothing yet; `agents` are run folders by name."""
        self._dtype, self._mesh = dtype, mesh
        self._folders = {BASE: model} | {
            f"{agent}@{name}": str(path)
            for name, folder in agents.items()
            for agent, path in exported(folder).items()
        }
        self.trained = {name: frozenset(exported(folder)) for name, folder in agents.items()}
        self._loaded: dict[str, Model] = {}

    def __getitem__(self, name: str) -> Model:
        """Returns the model, loaded once."""
        if name not in self._loaded:
            folder = self._folders[name]
            self._loaded[name] = load_model(folder, dtype=self._dtype, mesh=self._mesh)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Iterates over all names."""
        return iter(self._folders)

    def __len__(self) -> int:
        """Counts the names."""
        return len(self._folders)

    def __contains__(self, name: object) -> bool:
        """Tells whether a model has that name; nothing is loaded."""
        return name in self._folders


def exported(folder: str) -> dict[str, Path]:
    """Finds the agents in the run folder of an experiment, with their model folders."""
    found = {agent: user_path(folder) / "export" / agent for agent in AGENTS}
    return {agent: path for agent, path in found.items() if path.is_dir()}


def parse_names(flag: str, text: str) -> dict[str, str]:
    """Parses a flag such as `grpo=runs/a,sft=runs/b`; UserError where it reads otherwise."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if not name or not value or set(name) & set("@:/"):
            raise UserError(f"--{flag}={text}: {part!r} should read name=folder.")
        found[name] = value
    return found


def split_name(options: TableConfig, name: str) -> tuple[str, str]:
    """Splits a name such as `memory_r1@grpo:7b` into the row and the backbone's model.

    Raises:
      UserError: there is no such row, or `--backbones` lacks its backbone.
    """
    row, _, backbone = name.partition(":")
    split_row(row)
    backbones = {"": options.model} | parse_names("backbones", options.backbones)
    if backbone not in backbones:
        raise UserError(f"The row {name} names a backbone {backbone!r} that --backbones lacks.")
    return row, backbones[backbone]


def identities(options: TableConfig, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the models of rows, by the part of a row's name that means them, with digests.

    The model of `--model` is called "base". Missing agents are left out.
    """
    dtype = compute_dtype(options.dtype)
    folders = parse_names("agents", options.agents)
    found: dict[str, tuple[str, Path]] = {}
    for name in names:
        row, model = split_name(options, name)
        backbone = name.partition(":")[2]
        found[f":{backbone}" if backbone else BASE] = model, resolve_model(model)
        agents = split_row(row)[1]
        for agent, path in exported(folders.get(agents, "")).items() if agents else ():
            found[f"{agent}@{agents}"] = str(path), path
    return {
        label: {"model": model, "digest": model_digest(folder, dtype)}
        for label, (model, folder) in found.items()
    }
