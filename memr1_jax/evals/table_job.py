"""A table as a job: its rows one after another, each kept as soon as it is done."""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp

from memr1_jax.agents.templates import read_prompt
from memr1_jax.errors import UserError
from memr1_jax.evals.generator import Generator, Limits
from memr1_jax.evals.harness import run_row
from memr1_jax.evals.reply_cache import ReplyCache, model_digest
from memr1_jax.evals.row_files import Row, read_row, row_of, write_row
from memr1_jax.evals.scoring import summarise
from memr1_jax.evals.systems.bank import Embed
from memr1_jax.evals.systems.embedders import remembering, token_embedder
from memr1_jax.evals.systems.registry import BASE, Resources, build_row, split_row
from memr1_jax.evals.table import TableRow, write_table
from memr1_jax.evals.table_config import TableConfig, check_table, settings
from memr1_jax.evals.table_data import TableData, load_table_data
from memr1_jax.evals.table_judge import Judging, judging
from memr1_jax.evals.table_models import Models
from memr1_jax.evals.table_plots import write_plots
from memr1_jax.parallel.mesh import make_mesh
from memr1_jax.training.config import AgentConfig
from memr1_jax.training.files import prepare_run_folder, write_json_atomic
from memr1_jax.training.loading import Model, compute_dtype
from memr1_jax.training.progress import progress_bar, table


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
        split_row(name)
    folder = prepare_run_folder(options.output, resume=True)
    mesh = make_mesh(options.mesh) if options.mesh else None
    models = Models(options, mesh)
    data = load_table_data(options, folder)
    about = _about(options, data, models[BASE])
    _check_settings(folder, about)
    judge = judging(options, folder)
    cache = ReplyCache(folder / "replies.sqlite")
    try:
        workshop = _Workshop(options, data, models, cache, mesh)
        rows = {name: TableRow(name) for name in names}
        for name in names:
            rows[name] = _row(folder, name, workshop, models, judge, options)
            write_table(folder, about, list(rows.values()))
            write_plots(folder, about["title"], list(rows.values()))
    finally:
        cache.close()
    _print(about, list(rows.values()), folder)
    return list(rows.values())


class _Workshop:
    """What running a row needs; made once, and only if a row has to run."""

    def __init__(self, options, data, models, cache, mesh):
        self.options, self.data = options, data
        self._models, self._cache, self._mesh = models, cache, mesh

    @functools.cached_property
    def generator(self) -> Generator:
        options = self.options
        limits = Limits(options.batch, options.batch_tokens, options.max_prompt_length)
        return Generator(self._models, limits=limits, cache=self._cache, mesh=self._mesh)

    @functools.cached_property
    def count(self) -> Callable[[str], int]:
        tokenizer = self._models[BASE].tokenizer

        @functools.lru_cache(maxsize=1 << 18)
        def count(text: str) -> int:
            return len(tokenizer.encode(text, add_special_tokens=False))

        return count

    @functools.cached_property
    def resources(self) -> Resources:
        options, model = self.options, self._models[BASE]
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
    models: Models,
    judge: Judging | None,
    options: TableConfig,
) -> TableRow:
    row = read_row(folder / "rows", name)
    if row is None:
        try:
            system = build_row(name, workshop.resources, models.trained)
            row = _run(name, system, workshop, options)
        except UserError as error:
            return TableRow(name, reason=" ".join(str(error).split()))
        write_row(folder / "rows", name, row)
    return _summarised(name, row, judge, options)


def _run(name: str, system, workshop: _Workshop, options: TableConfig) -> Row:
    with progress_bar(1, name) as progress:

        def on_progress(what: str, done: int, total: int) -> None:
            progress.describe(f"{name}: {what}")
            progress.resize(total)
            progress.update(done)

        generator = workshop.generator
        generator.on_batch = lambda done, total: on_progress("calls of this round", done, total)
        return row_of(
            run_row(
                system,
                workshop.data.conversations,
                generator,
                workshop.count,
                together_at_most=options.conversations,
                on_progress=on_progress,
            )
        )


def _summarised(name: str, row: Row, judge: Judging | None, options: TableConfig) -> TableRow:
    answered, judged = row.answered, TableRow(name).judged
    if judge is not None:
        answered, judged = judge(name, answered)
    return TableRow(name, row, summarise(answered, options.seed), judged=judged)


def _about(options: TableConfig, data: TableData, model: Model) -> dict:
    """What the figures hang on, and what a reader must know of them."""
    dtype = str(jnp.dtype(compute_dtype(options.dtype)))
    return {
        "title": data.title,
        "model": options.model,
        "model_digest": model_digest(model.folder, dtype),
        "dtype": dtype,
        "embedder": options.embedder,
        "answer_prompt": options.answer_prompt,
        "facts": options.facts,
        "prompt_digests": {
            kind: read_prompt(f"{kind}_{getattr(options, f'{kind}_prompt')}").digest
            for kind in ("answer", "manager")
        },
        "data_sha256": data.sha256,
        "settings": settings(options),
    }


def _check_settings(folder: str | os.PathLike, about: Mapping) -> None:
    """Keeps what a table was begun with; UserError where it was something else."""
    path = Path(folder) / "settings.json"
    if not path.exists():
        write_json_atomic(path, dict(about))
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    flat, old = ({**found, **found.get("settings", {})} for found in (about, before))
    differing = sorted(
        key for key in {*flat, *old} - {"settings", "title"} if flat.get(key) != old.get(key)
    )
    if differing:
        raise UserError(
            f"{folder} holds a table that was begun with other options: {', '.join(differing)} "
            "differ. Give --output another folder, or the same options."
        )


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
