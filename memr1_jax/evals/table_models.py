"""The models of a table, each loaded when it is first asked for."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from jax.sharding import Mesh

from memr1_jax.errors import UserError
from memr1_jax.evals.systems.registry import BASE
from memr1_jax.evals.table_config import TableConfig
from memr1_jax.training.config import AgentConfig
from memr1_jax.training.loading import Model, load_model

AGENTS = ("manager", "answer")


class Models(Mapping):
    """The backbone as "base", trained agents as in "manager@grpo"."""

    def __init__(self, options: TableConfig, mesh: Mesh | None):
        """Reads names and folders; UserError where a run folder holds no exported agent."""
        self._options, self._mesh = options, mesh
        self._folders = {BASE: options.model}
        self.trained: dict[str, frozenset[str]] = {}
        for part in filter(None, (part.strip() for part in options.agents.split(","))):
            name, equals, folder = part.partition("=")
            exports = {agent: Path(folder).expanduser() / "export" / agent for agent in AGENTS}
            found = {agent: path for agent, path in exports.items() if path.is_dir()}
            if not name or not equals or not found:
                raise UserError(
                    f"--agents={options.agents}: {part!r} does not name a run folder with "
                    "export/manager or export/answer. Write it as grpo=runs/locomo_grpo."
                )
            self.trained[name] = frozenset(found)
            self._folders |= {f"{agent}@{name}": str(path) for agent, path in found.items()}
        self._loaded: dict[str, Model] = {}

    def __getitem__(self, name: str) -> Model:
        """The model, loaded once."""
        if name not in self._loaded:
            agent = AgentConfig(dtype=self._options.dtype, remat="none")
            self._loaded[name] = load_model(self._folders[name], agent, self._mesh)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """All names."""
        return iter(self._folders)

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._folders)

    def __contains__(self, name: object) -> bool:
        """Whether a model has that name; nothing is loaded."""
        return name in self._folders
