"""The rows of the tables by name: `ROWS`, and what their systems are made of.

A row is named as in `memory_r1@grpo`: trained agents stand after the @. Without them the backbone
plays both.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from memr1_jax.agents.prompt_files import plain_prompt, read_prompt
from memr1_jax.bench.systems import ranking, units
from memr1_jax.bench.systems.amem import AMemSystem
from memr1_jax.bench.systems.answer_stage import AnswerStage, Count, answer_stage
from memr1_jax.bench.systems.crud import CrudSystem
from memr1_jax.bench.systems.extraction import (
    FactSource,
    extracted_facts,
    noted_facts,
    turn_facts,
    user_turn_facts,
)
from memr1_jax.bench.systems.managers import (
    Manager,
    add_only,
    language_model_manager,
    newest_wins,
    noop_only,
    random_operations,
)
from memr1_jax.bench.systems.memoryos import MemoryOSSystem
from memr1_jax.bench.systems.protocol import System
from memr1_jax.bench.systems.temporal import TemporalSystem
from memr1_jax.bench.systems.text_bank import Embed
from memr1_jax.bench.systems.tool_agent import ToolAgentSystem
from memr1_jax.bench.systems.verbatim import ReadingSystem
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.inference.agents import Agents

BASE = "base"


@dataclasses.dataclass(frozen=True)
class Resources:
    """Holds what the systems of a table share.

    `positions` are the tokens that the backbone can hold; `summaries` the data set's own, by
    conversation and session; `agents` names the trained agents of this row, and `trained` which of
    "manager" and "answer" they have.
    """

    options: TableConfig
    conversations: Sequence[Conversation]
    summaries: Mapping[str, Mapping[int, str]]
    embed: Embed
    second_embed: Embed | None  # of the reranker
    count: Count
    positions: int
    agents: str = ""
    trained: frozenset[str] = frozenset()
    load_agents: Callable[[str, str], Agents] | None = None  # by the names of two models

    def room(self, response: int) -> int:
        """Returns the tokens of a prompt that leaves room for a response."""
        most = self.options.max_prompt_length or self.positions
        return min(most, self.positions - response)

    def model(self, agent: str) -> str:
        """Names the weights of "manager" or "answer" in this row."""
        if not self.agents:
            return BASE
        if agent not in self.trained:
            raise UserError(f"--agents gives {self.agents} no trained {agent} (export/{agent}).")
        return f"{agent}@{self.agents}"

    def stage(self, model: str = BASE, prompt: str = "") -> AnswerStage:
        """Builds the stage that asks for answers."""
        response = self.options.answer_response_length
        name = prompt or self.options.answer_prompt
        return answer_stage(name, self.count, self.room(response), response, model)

    def plain_stage(self, model: str = BASE) -> AnswerStage:
        """Builds the same stage without selecting memories before the answer (distillation)."""
        return self.stage(model, plain_prompt(self.options.answer_prompt))

    def facts(self) -> FactSource:
        """Returns the facts that managers are given."""
        if self.options.facts == "noted":
            if not any(conversation.facts for conversation in self.conversations):
                raise UserError("The data set notes no facts: use --facts=extracted or turns.")
            return noted_facts(self.conversations)
        if self.options.facts == "turns":
            return turn_facts
        if self.options.facts == "user_turns":
            return user_turn_facts
        return extracted_facts(
            self.options.extraction_prompt, max_tokens=self.options.manager_response_length
        )

    def manager(self, model: str = BASE, *, constrained: bool = False) -> Manager:
        """Builds the language model as Memory Manager."""
        options, prompt = self.options, self.options.manager_prompt
        response = options.manager_response_length
        text = read_prompt(prompt, "manager")
        frame = sum(self.count(content) + 8 for _, content in text.messages) + 256  # and facts
        return language_model_manager(
            self.embed,
            prompt,
            model=model,
            schema=text.head.schema if constrained else "",
            max_tokens=response,
            neighbours=options.neighbours,
            shown=options.memories_shown,
            room=max(self.room(response) - frame, 0),
            count=self.count,
            salvage=options.salvage,
        )


Row = Callable[[Resources], System]


def _reading(name, resources, read, find, **options) -> ReadingSystem:
    return ReadingSystem(name, read, find, resources.stage(), **options)


def _turns(name: str, find: Callable[[Resources], ranking.Search], chronological=False) -> Row:
    return lambda r: _reading(name, r, units.turns, find(r), chronological=chronological)


def _chunks(name: str, find: Callable[[Resources], ranking.Search]) -> Row:
    def make(r: Resources) -> System:
        arrange = units.chunks(r.options.chunk_tokens, r.count)
        return _reading(name, r, units.turns, find(r), arrange=arrange)

    return make


def _observations(name: str, find: Callable[[Resources], ranking.Search]) -> Row:
    return lambda r: _reading(name, r, _noted(r), find(r))


def _summaries(name: str, find: Callable[[Resources], ranking.Search]) -> Row:
    def make(r: Resources) -> System:
        if not any(r.summaries.values()):
            raise UserError("The data set has no summaries of its sessions.")
        return _reading(name, r, units.summaries(r.conversations, r.summaries), find(r))

    return make


def _noted(r: Resources) -> units.Read:
    if not any(conversation.facts for conversation in r.conversations):
        raise UserError("The data set notes no observations.")
    return units.observations(r.conversations)


def _shuffled(r: Resources) -> System:
    return _reading(
        "shuffled_times",
        r,
        units.turns,
        ranking.dense(r.options.units, r.embed),
        arrange=units.shuffled_times(r.options.seed),
    )


def _bank(name: str, manager: Callable[[Resources], Manager], answer=None) -> Row:
    """Joins facts, a manager and the nearest memories; `answer` makes the stage, else plain."""

    def make(r: Resources) -> System:
        stage = (answer or (lambda r: r.stage()))(r)
        limits = {"memories": r.options.memories, "facts_per_call": r.options.facts_per_call}
        return CrudSystem(name, r.facts(), manager(r), r.embed, stage, **limits)

    return make


def _reranking(r: Resources, stage: AnswerStage) -> AnswerStage:
    keep = r.options.reranked
    if r.options.reranker == "bm25":
        return dataclasses.replace(stage, rerank=ranking.bm25_reranker(keep))
    return dataclasses.replace(stage, rerank=ranking.dense_reranker(keep, r.second_embed))


def _trained_manager(r: Resources) -> Manager:
    return r.manager(r.model("manager"), constrained=True)


def _other(name: str, system: Callable[..., System], **options) -> Row:
    """Makes a row of a system with its own management and sizes."""

    def make(r: Resources) -> System:
        length = r.options.manager_response_length
        return system(name, r.embed, r.stage(), max_tokens=length, **options)

    return make


def _service(r: Resources) -> System:
    from memr1_jax.bench.systems.service import ServiceSystem

    if r.options.facts not in ("turns", "user_turns"):
        raise UserError(
            f"The service remembers turns as they are said, not --facts={r.options.facts}: use"
            " --facts=turns or user_turns."
        )
    agents = r.load_agents(r.model("manager"), r.model("answer"))
    return ServiceSystem("service", agents, r.options.facts == "user_turns")


ROWS: dict[str, Row] = {
    # No memory management.
    "question_only": _turns("question_only", lambda r: ranking.nothing),
    "full_context": _turns("full_context", lambda r: ranking.everything, chronological=True),
    "last_tokens": _turns(
        "last_tokens",
        lambda r: ranking.newest(r.options.last_tokens, r.count),
        chronological=True,
    ),
    "oracle": _turns("oracle", lambda r: ranking.evidence, chronological=True),
    "bm25_turns": _turns("bm25_turns", lambda r: ranking.bm25(r.options.units)),
    "dense_turns": _turns("dense_turns", lambda r: ranking.dense(r.options.units, r.embed)),
    "bm25_chunks": _chunks("bm25_chunks", lambda r: ranking.bm25(r.options.chunks)),
    "dense_chunks": _chunks("dense_chunks", lambda r: ranking.dense(r.options.chunks, r.embed)),
    "bm25_observations": _observations(
        "bm25_observations", lambda r: ranking.bm25(r.options.units)
    ),
    "dense_observations": _observations(
        "dense_observations", lambda r: ranking.dense(r.options.units, r.embed)
    ),
    "bm25_summaries": _summaries("bm25_summaries", lambda r: ranking.bm25(r.options.summaries)),
    "dense_summaries": _summaries(
        "dense_summaries", lambda r: ranking.dense(r.options.summaries, r.embed)
    ),
    "shuffled_times": _shuffled,
    # A bank without a trained manager.
    "noop": _bank("noop", lambda r: noop_only),
    "random_operations": _bank(
        "random_operations",
        lambda r: random_operations(
            r.embed, r.options.seed, neighbours=r.options.neighbours, shown=r.options.memories_shown
        ),
    ),
    "add_only": _bank("add_only", lambda r: add_only(r.embed)),
    "newest_wins": _bank("newest_wins", lambda r: newest_wins(r.embed)),
    "mem0": _bank("mem0", lambda r: r.manager()),
    "mem0_constrained": _bank("mem0_constrained", lambda r: r.manager(constrained=True)),
    # Trained agents, named after the @; and each of them with an untrained partner.
    "memory_r1": _bank("memory_r1", _trained_manager, lambda r: r.stage(r.model("answer"))),
    "manager_only": _bank("manager_only", _trained_manager),
    "answer_only": _bank(
        "answer_only",
        lambda r: r.manager(constrained=True),
        lambda r: r.stage(r.model("answer")),
    ),
    "no_distillation": _bank(
        "no_distillation", _trained_manager, lambda r: r.plain_stage(r.model("answer"))
    ),
    "reranker": _bank(
        "reranker",
        _trained_manager,
        lambda r: _reranking(r, r.plain_stage(r.model("answer"))),
    ),
    # Other systems; the second row of MemoryOS keeps what the original loses of a dialogue.
    "a_mem": _other("a_mem", AMemSystem),
    "memory_os": _other("memory_os", MemoryOSSystem),
    "memory_os_lossless": _other(
        "memory_os_lossless", MemoryOSSystem, keep_unpaired=True, keep_unsummarised=True
    ),
    # Only its management is its own: answers are made as in the rows with a bank.
    "tool_agent": lambda r: _other("tool_agent", ToolAgentSystem, memories=r.options.memories)(r),
    "temporal_facts": _other("temporal_facts", TemporalSystem),
    # The pair of memory_r1 behind the memory for applications.
    "service": _service,
}


def split_row(name: str) -> tuple[str, str]:
    """Splits a name such as `memory_r1@grpo` into the row and the trained agents.

    Raises:
      UserError: there is no such row.
    """
    row, _, agents = name.partition("@")
    if row not in ROWS:
        raise UserError(f"There is no row {row!r}; choose from {', '.join(ROWS)}.")
    return row, agents


def build_row(name: str, resources: Resources, trained: Mapping[str, frozenset[str]]) -> System:
    """Builds the system of a row; `trained` tells which agents there are under which name.

    Raises:
      UserError: there is no such row, or what it needs is missing.
    """
    row, agents = split_row(name)
    if agents and not trained.get(agents):
        raise UserError(f"--agents names no run folder {agents} with exported agents.")
    resources = dataclasses.replace(
        resources, agents=agents, trained=trained.get(agents, frozenset())
    )
    return ROWS[row](resources)
