"""A table as a job: its rows one after another, each kept as soon as it is done."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
from jax.sharding import Mesh

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.agent_pair import Models as Pair
from memr1_jax.agents.agent_pair import build_agent_pair, build_embedder
from memr1_jax.agents.prompt_files import read_prompt
from memr1_jax.bench.engine import Engine, Limits
from memr1_jax.bench.harness import run_row
from memr1_jax.bench.reply_cache import ReplyCache
from memr1_jax.bench.scoring import METRICS, summarise
from memr1_jax.bench.systems.embedders import remembering, token_embedder
from memr1_jax.bench.systems.management_prompts import extraction_prompt, prompt_digests
from memr1_jax.bench.systems.protocol import System
from memr1_jax.bench.systems.registry import BASE, Resources, build_row
from memr1_jax.bench.systems.text_bank import Embed
from memr1_jax.bench.tables.data import TableData, load_table_data, table_source
from memr1_jax.bench.tables.differences import differences
from memr1_jax.bench.tables.judge_column import Judging, judging
from memr1_jax.bench.tables.models import Models, identities, parse_names, split_name
from memr1_jax.bench.tables.pictures import write_plots
from memr1_jax.bench.tables.rows import Row, read_row, row_of, write_row
from memr1_jax.bench.tables.table_config import (
    FREE,
    TableConfig,
    check_table,
    names_in,
    papers,
    settings,
)
from memr1_jax.bench.tables.table_files import TableRow, write_table
from memr1_jax.errors import UserError
from memr1_jax.inference.agents import Agents
from memr1_jax.models.loading import Model, compute_dtype
from memr1_jax.parallel.mesh import make_mesh
from memr1_jax.run.progress import progress_bar, table
from memr1_jax.run.run_folder import RECORDS, Input, RunFolder
from memr1_jax.text.plain import plain_encoder


def make_table(options: TableConfig) -> list[TableRow]:
    """Runs the rows that the options name, and writes the table after each of them.

    A table that was begun in the folder with the same options is resumed: finished rows are read,
    and stored replies are not computed again.

    Raises:
      UserError: a row is unknown, no row could be run, or the folder belongs to a table of other
        options.
    """
    check_table(options)
    names = names_in(options.rows)
    for name in names:
        split_name(options, name)
    with RunFolder(
        options.output,
        "table",
        options,
        resume=True,
        overwrite=options.overwrite,
        free=FREE,
        marks=RECORDS,
    ) as opened:
        data = load_table_data(options, opened.path, again=not opened.begun)
        about = _about(options, data, names)
        opened.record(_inputs(about))
        return _make(options, names, opened.path, data, about)


def _make(
    options: TableConfig, names: Sequence[str], folder: Path, data: TableData, about: dict
) -> list[TableRow]:
    judge = judging(options, folder)
    cache = ReplyCache(folder / "replies.sqlite")
    try:
        workshop = None
        rows = {name: TableRow(name) for name in names}
        for name in names:
            _, backbone = split_name(options, name)
            if workshop is None or workshop.options.model != backbone:
                del workshop  # its models leave the memory
                workshop = _Workshop(dataclasses.replace(options, model=backbone), data, cache)
            rows[name] = _row(folder, name, workshop, judge)
            write_table(folder, about, list(rows.values()))
            write_plots(folder, about["title"], list(rows.values()))
    finally:
        cache.close()
    if options.against:
        answered = {name: row.answered for name, row in rows.items() if row.row is not None}
        compared = differences(answered, options.against, options.seed)
        write_table(folder, about, list(rows.values()), compared)
    _print(about, list(rows.values()), folder)
    if all(row.row is None for row in rows.values()):
        reasons = "; ".join(f"{row.name}: {row.reason}" for row in rows.values())
        raise UserError(f"No row of the table in {folder} could be run. {reasons}")
    return list(rows.values())


class _Workshop:
    """Holds what a row needs to run; made once, and only if a row has to run."""

    def __init__(self, options: TableConfig, data: TableData, cache: ReplyCache):
        self.options, self.data, self._cache = options, data, cache

    @functools.cached_property
    def models(self) -> Models:
        options = self.options
        agents = parse_names("agents", options.agents)
        return Models(options.model, agents, options.dtype, self._mesh)

    @functools.cached_property
    def engine(self) -> Engine:
        options = self.options
        limits = Limits(options.eval_batch, options.batch_tokens, options.max_prompt_length)
        return Engine(self.models, limits=limits, cache=self._cache, mesh=self._mesh)

    @functools.cached_property
    def _mesh(self) -> Mesh | None:
        return make_mesh(self.options.mesh) if self.options.mesh else None

    @functools.cached_property
    def count(self) -> Callable[[str], int]:
        encode = plain_encoder(self.models[BASE].tokenizer)

        @functools.lru_cache(maxsize=1 << 18)
        def count(text: str) -> int:
            return len(encode(text))

        return count

    @functools.cached_property
    def resources(self) -> Resources:
        options, model = self.options, self.models[BASE]
        second = None
        if options.reranker == "minilm":
            second = _embedder("minilm", options, model, self.data)
        return Resources(
            options=options,
            conversations=self.data.conversations,
            summaries=self.data.summaries,
            embed=_embedder(options.embedder, options, model, self.data),
            second_embed=second,
            count=self.count,
            positions=model.config.max_positions,
            load_agents=self.load_agents,
        )

    def load_agents(self, manager: str, answerer: str) -> Agents:
        """Makes a pair of agents of two models, with the prompts and sizes of the table."""
        options, models = self.options, Pair(self.models[manager], self.models[answerer], None)
        if options.embedder == "minilm":
            raise UserError("The service has no --embedder=minilm: use tfidf, static or both.")
        same = {field.name for field in dataclasses.fields(AgentConfig)}
        same &= {field.name for field in dataclasses.fields(TableConfig)}
        values = {name: getattr(options, name) for name in same - {"max_prompt_length"}}
        longest = max(options.answer_response_length, options.manager_response_length)
        room = min(model.config.max_positions for model in (models.manager, models.answerer))
        most = options.max_prompt_length or AgentConfig.max_prompt_length
        chosen = AgentConfig(
            **values, constrained=True, max_prompt_length=min(most, room - longest)
        )
        return Agents(chosen, models, build_agent_pair(chosen, models, self.data.statistics))


def _row(
    folder: Path,
    name: str,
    workshop: _Workshop,
    judge: Judging | None,
) -> TableRow:
    row = read_row(folder / "rows", name)
    if row is None:
        try:
            system = build_row(name.partition(":")[0], workshop.resources, workshop.models.trained)
            row = _run(name, system, workshop)
        except UserError as error:
            return TableRow(name, reason=" ".join(str(error).split()))
        write_row(folder / "rows", name, row)
    return _summarised(name, row, judge, workshop.options.seed)


def _run(name: str, system: System, workshop: _Workshop) -> Row:
    with progress_bar(1, name) as progress:

        def on_progress(what: str, done: int, total: int) -> None:
            progress.describe(f"{name}: {what}")
            progress.resize(total)
            progress.update(done)

        def on_batch(done: int, total: int) -> None:
            if total > 4 * workshop.options.eval_batch:
                on_progress("calls of this round", done, total)

        engine = workshop.engine
        engine.forget()  # a row must run alone as it does after the others
        engine.on_batch = on_batch
        return row_of(
            run_row(
                system,
                workshop.data.conversations,
                engine,
                workshop.count,
                score=METRICS[table_source(workshop.options.data).metrics],
                together_at_most=workshop.options.conversations,
                plain_marks=workshop.options.plain_marks,
                on_progress=on_progress,
            )
        )


def _summarised(name: str, row: Row, judge: Judging | None, seed: int) -> TableRow:
    answered, judged = row.answered, TableRow(name).judged
    if judge is not None:
        answered, judged = judge(name, answered)
    return TableRow(name, row, answered, summarise(answered, seed), judged=judged)


def _about(options: TableConfig, data: TableData, names: Sequence[str]) -> dict:
    """Collects what the figures depend on, and what a reader must know about them."""
    return {
        "title": data.title,
        "irregular": data.irregular,
        "models": identities(options, names),
        "dtype": str(jnp.dtype(compute_dtype(options.dtype))),
        "embedder": options.embedder,
        "answer_prompt": options.answer_prompt,
        "facts": options.facts,
        "prompt_digests": {
            kind: read_prompt(getattr(options, f"{kind}_prompt"), kind).digest
            for kind in ("answer", "manager")
        },
        "management_digests": prompt_digests() | _extraction(options),
        "paper": papers(options),
        "against": options.against,
        "data_sha256": data.sha256,
        "settings": settings(options),
    }


def _extraction(options: TableConfig) -> dict[str, str]:
    """Digests the prompt that asks for facts, where it is asked: it may be one's own."""
    if options.facts != "extracted":
        return {}
    prompt = extraction_prompt(options.extraction_prompt)
    return {prompt.name: prompt.digest}


def _inputs(about: Mapping) -> dict[str, Input]:
    """Lists what the options name, with digests; further rows may add further models."""
    found = {
        f"the model {label}": Input(model["model"], model["digest"])
        for label, model in about["models"].items()
    }
    prompts = about["prompt_digests"] | about["management_digests"]
    digests = {"data": about["data_sha256"], "prompt": prompts}
    for kind, named in digests.items():
        found |= {f"the {kind} {name}": Input(name, digest) for name, digest in named.items()}
    return found | {"--dtype": Input(about["dtype"], about["dtype"])}


def _embedder(name: str, options: TableConfig, model: Model, data: TableData) -> Embed:
    if name == "minilm":
        from memr1_jax.models.bert import minilm_embedder

        return remembering(minilm_embedder())
    chosen = AgentConfig(embedder=name, features=options.features)
    return remembering(
        token_embedder(model.tokenizer, build_embedder(chosen, model, data.statistics))
    )


def _print(about: Mapping, rows: Sequence[TableRow], folder: Path) -> None:
    lines = []
    for row in rows:
        if row.row is None:
            lines.append([row.name, "not run", row.reason])
            continue
        found = row.overall["metrics"]
        scores = ", ".join(f"{name} {100 * entry['mean']:.2f}" for name, entry in found.items())
        lines.append([row.name, str(row.overall["count"]), scores])
    table(about["title"], ["row", "n", "percent"], lines)
    print(f"Everything is in {folder}")
