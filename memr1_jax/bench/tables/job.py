"""A table as a job: its rows one after another, each kept as soon as it is done."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
from jax.sharding import Mesh

from memr1_jax.agents.prompt_files import read_prompt
from memr1_jax.bench.generator import Generator, Limits
from memr1_jax.bench.harness import run_row
from memr1_jax.bench.reply_cache import ReplyCache
from memr1_jax.bench.scoring import summarise
from memr1_jax.bench.systems.bank import Embed
from memr1_jax.bench.systems.embedders import remembering, token_embedder
from memr1_jax.bench.systems.management_prompts import prompt_digests
from memr1_jax.bench.systems.protocol import System
from memr1_jax.bench.systems.registry import BASE, Resources, build_row
from memr1_jax.bench.tables.config import (
    TableConfig,
    check_table,
    papers,
    settings,
)
from memr1_jax.bench.tables.data import TableData, load_table_data
from memr1_jax.bench.tables.differences import differences
from memr1_jax.bench.tables.judging import Judging, judging
from memr1_jax.bench.tables.markdown import TableRow, write_table
from memr1_jax.bench.tables.models import Models, identities, parse_names, split_name
from memr1_jax.bench.tables.plots import write_plots
from memr1_jax.bench.tables.rows import Row, read_row, row_of, write_row
from memr1_jax.errors import UserError
from memr1_jax.parallel.mesh import make_mesh
from memr1_jax.run.files import prepare_run_folder, write_json_atomic
from memr1_jax.run.progress import progress_bar, table
from memr1_jax.text.plain import plain_encoder
from memr1_jax.training.config import AgentConfig
from memr1_jax.training.loading import Model, compute_dtype


def make_table(options: TableConfig) -> list[TableRow]:
    """Runs the rows that the options name, and writes the table after each of them.

    A folder with a table that was begun with the same options is gone on with: finished rows are
    read, replies that are there are not computed again.

    Raises:
      UserError: a row is unknown, or the folder belongs to a table of other options.
    """
    check_table(options)
    names = list(dict.fromkeys(filter(None, (n.strip() for n in options.rows.split(",")))))
    for name in names:
        split_name(options, name)
    if options.against and options.against not in names:
        raise UserError(f"--against={options.against} is none of --rows={options.rows}.")
    folder = prepare_run_folder(options.output, resume=True)
    data = load_table_data(options, folder)
    about = _about(options, data, names)
    _check_settings(folder, about)
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
    return list(rows.values())


class _Workshop:
    """What running a row needs; made once, and only if a row has to run."""

    def __init__(self, options: TableConfig, data: TableData, cache: ReplyCache):
        self.options, self.data, self._cache = options, data, cache

    @functools.cached_property
    def models(self) -> Models:
        options = self.options
        agents = parse_names("agents", options.agents)
        return Models(options.model, agents, options.dtype, self._mesh)

    @functools.cached_property
    def generator(self) -> Generator:
        options = self.options
        limits = Limits(options.batch, options.batch_tokens, options.max_prompt_length)
        return Generator(self.models, limits=limits, cache=self._cache, mesh=self._mesh)

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
        )


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
            if total > 4 * workshop.options.batch:
                on_progress("calls of this round", done, total)

        generator = workshop.generator
        generator.forget()  # a row that is resumed alone must go as after all others
        generator.on_batch = on_batch
        return row_of(
            run_row(
                system,
                workshop.data.conversations,
                generator,
                workshop.count,
                together_at_most=workshop.options.conversations,
                on_progress=on_progress,
            )
        )


def _summarised(name: str, row: Row, judge: Judging | None, seed: int) -> TableRow:
    answered, judged = row.answered, TableRow(name).judged
    if judge is not None:
        answered, judged = judge(name, answered)
    return TableRow(name, row, answered, summarise(answered, seed), judged=judged)


def _about(options: TableConfig, data: TableData, names: Sequence[str]) -> dict:
    """What the figures hang on, and what a reader must know of them."""
    return {
        "title": data.title,
        "models": identities(options, names),
        "dtype": str(jnp.dtype(compute_dtype(options.dtype))),
        "embedder": options.embedder,
        "answer_prompt": options.answer_prompt,
        "facts": options.facts,
        "prompt_digests": {
            kind: read_prompt(getattr(options, f"{kind}_prompt"), kind).digest
            for kind in ("answer", "manager")
        },
        "management_digests": prompt_digests(),
        "paper": papers(options),
        "against": options.against,
        "data_sha256": data.sha256,
        "settings": settings(options),
    }


def _check_settings(folder: Path, about: Mapping) -> None:
    """Keeps what a table was begun with; UserError where it was something else.

    Further models may join, for further rows.
    """
    path = folder / "settings.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    old, new = (_flat(value) for value in (before, about))
    differing = sorted(key for key in old.keys() & new.keys() if old[key] != new[key])
    if differing:
        raise UserError(
            f"{folder} holds a table that was begun with another {', another '.join(differing)}. "
            "Give --output another folder, or the same options."
        )
    models = {**before.get("models", {}), **about["models"]}
    write_json_atomic(path, dict(about) | {"models": models})


def _flat(about: Mapping) -> dict:
    """Settings and models side by side with the rest."""
    rest = {
        key: v
        for key, v in about.items()
        if key not in ("settings", "models", "title", "paper", "against")
    }
    return {**rest, **about.get("settings", {}), **about.get("models", {})}


def _embedder(name: str, options: TableConfig, model: Model, data: TableData) -> Embed:
    if name == "minilm":
        from memr1_jax.models.bert import minilm_embedder

        return remembering(minilm_embedder())
    from memr1_jax.training.workbench import build_embedder

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
