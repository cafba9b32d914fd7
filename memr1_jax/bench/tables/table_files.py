"""Writes the table of all rows: results.json, Markdown for readers, and times in another file."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from memr1_jax.bench.paper import paper_latency, paper_markdown
from memr1_jax.bench.scoring import OVERALL, Answered, headline
from memr1_jax.bench.tables.rows import OPERATIONS, Row
from memr1_jax.bench.tables.table_config import LATENCY
from memr1_jax.run.files import write_json_atomic, write_text_atomic
from memr1_jax.run.markdown import markdown_table
from memr1_jax.text.events import REPORTED

NOT_RUN = "not run"
_ELSEWHERE = (
    "Figures of Memory-R1 (arXiv 2508.19828), with the corrections that the notes name. They were "
    "made with other fact extractors, embedders and judges: to be read next to ours, not to be "
    "ranked with them."
)
_OPERATIONS = (
    "Against gold operations, in percent, of rows that make any: P and R are precision and recall "
    "of each session's net changes, where a memory is known by the turns that it came from; stale "
    "and duplicates are shares of the memories at the end, stale answers of the questions about "
    "what has changed. "
    "Missing (facts that hold and are in no memory) and wrong deletes (facts that held and were "
    "deleted or overwritten) are counts. Cascade asks for what follows from a fact that may have "
    "changed (exact match), absence for what was never said (whether the answer says so)."
)
_PAIRED = (
    "Differences in percentage points over the questions that both rows answered; intervals from "
    "questions, then whole conversations, that are drawn for both rows together; in round brackets "
    "relative to the other row's mean."
)


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A row of the table, or why it did not run.

    `answered` are its questions with all scores, a judge's included, and `summary` is
    from `scoring.summarise`. `judged` says what the judge left open.
    """

    name: str
    row: Row | None = None
    answered: Sequence[Answered] = ()
    summary: Sequence[Mapping] = ()
    reason: str = ""
    judged: str = NOT_RUN

    @property
    def overall(self) -> Mapping:
        """The means over all questions."""
        return self.summary[-1]

    @property
    def tokens_per_question(self) -> float:
        """Prompt and generated tokens of the whole row, reading included, for each question."""
        used = self.row.figures["calls"]["all"]
        return (used["prompt_tokens"] + used["tokens"]) / max(self.row.figures["questions"], 1)


def write_table(
    folder: str | os.PathLike,
    about: Mapping,
    rows: Sequence[TableRow],
    compared: Mapping[str, Mapping] | None = None,
) -> None:
    """Writes results.json, table.md and timing.md.

    Args:
      folder: of the table.
      about: its models, prompts and options; `title` names its data.
      rows: in the order of the table.
      compared: what `differences.differences` finds against the row `about["against"]`.
    """
    folder = Path(folder)
    write_json_atomic(folder / "results.json", results(about, rows, compared))
    write_text_atomic(folder / "table.md", markdown(about, rows, compared))
    write_text_atomic(folder / "timing.md", timing_markdown(about, rows))


def results(
    about: Mapping, rows: Sequence[TableRow], compared: Mapping[str, Mapping] | None = None
) -> dict:
    """Returns all figures but times, as one value for JSON."""
    return dict(about) | {
        "differences": compared or {},
        "rows": {
            row.name: {"status": NOT_RUN, "reason": row.reason}
            if row.row is None
            else {
                "status": "done",
                **row.row.figures,
                "judge": row.judged,
                "scores": list(row.summary),
            }
            for row in rows
        },
    }


def metrics_of(rows: Sequence[TableRow]) -> list[str]:
    """Lists all metrics that any row has, in order."""
    return list(dict.fromkeys(name for row in rows if row.row for name in row.overall["metrics"]))


def markdown(
    about: Mapping, rows: Sequence[TableRow], compared: Mapping[str, Mapping] | None = None
) -> str:
    """Formats scores in percent with intervals, scores by group, and what rows cost and kept."""
    metrics = metrics_of(rows)
    parts = [f"# {about['title']}", *_notes(about)]
    header = ["row", "n", *metrics, *(["judge"] if "judge" not in metrics else [])]
    lines = []
    for row in rows:
        if row.row is None:
            reason = row.reason or "stopped before it"
            lines.append([row.name, f"{NOT_RUN}: {reason}", *[""] * (len(header) - 2)])
            continue
        cells = [_with_interval(row.overall["metrics"].get(name)) for name in metrics]
        cells += [row.judged] if "judge" not in metrics else []
        lines.append([row.name, str(row.overall["count"]), *cells])
    parts += ["## Overall", markdown_table(header, lines)]
    done = [row for row in rows if row.row is not None]
    if compared:
        parts += [f"## Against {about['against']}", _PAIRED, _against(compared, metrics)]
    if done:
        parts += [f"## By kind of question: {headline(metrics)}", _by_group(done, metrics)]
        parts += ["## What was kept and found", _kept(done)]
        if any("gold_operations" in row.row.figures for row in done):
            parts += ["## Memory operations", _OPERATIONS, _against_gold(done)]
        parts += ["## What was asked of the language model", _asked(done)]
    shown = [paper_markdown(name).rstrip() for name in about["paper"] if name != LATENCY]
    if shown:
        parts += ["## What the paper reports", _ELSEWHERE, *shown]
    return "\n\n".join(parts) + "\n"


def timing_markdown(about: Mapping, rows: Sequence[TableRow]) -> str:
    """Formats the median and the 95th percentile of seconds by stage."""
    lines = [
        [row.name, stage, str(found["calls"]), f"{found['p50']:.3f}", f"{found['p95']:.3f}"]
        for row in rows
        if row.row is not None
        for stage, found in row.row.timing.items()
    ]
    text = (
        "Seconds from when a batch is sent to the device until its replies are there; a call lasts "
        "as long as its batch, and compilation is not counted. With `--batch=1` they are the times "
        "of single calls. `search` is the time to find memories for a question, on the host."
    )
    grid = markdown_table(["row", "stage", "n", "p50", "p95"], lines)
    parts = [f"# {about['title']}: times", text, grid]
    if LATENCY in about["paper"]:
        lines = [list(dataclasses.astuple(latency)) for latency in paper_latency()]
        header = ["stage", "backbone", "variant", "p50", "p95"]
        grid = markdown_table(header, lines)
        parts += ["## What the paper reports, in seconds", _ELSEWHERE, grid]
    return "\n\n".join(parts) + "\n"


def _notes(about: Mapping) -> list[str]:
    models = ", ".join(f"{label} {found['model']}" for label, found in about["models"].items())
    irregular = [f"{what}: {number:,}" for what, number in about.get("irregular", {}).items()]
    return [
        *([f"Irregular in the data: {'; '.join(irregular)}."] if irregular else []),
        f"Models: {models}. {about['dtype']}, embedder {about['embedder']}, greedy decoding, "
        f"answer prompt {about['answer_prompt']}, facts {about['facts']}.",
        "Scores are percent; in brackets 95 % bootstrap intervals over questions, then over whole "
        "conversations where there are several. `n` counts the questions of the mean, which leaves "
        "adversarial ones out.",
    ]


def _by_group(rows: Sequence[TableRow], metrics: Sequence[str]) -> str:
    names = dict.fromkeys(
        (entry["name"], entry["paper_name"], entry["count"])
        for row in rows
        for entry in row.summary
        if entry["name"] != OVERALL
    )
    header = ["row"]
    for name, paper_name, count in names:
        published = f", in the papers' tables {paper_name}" if paper_name else ""
        header.append(f"{name} (n = {count}{published})")
    lines = []
    for row in rows:
        entries = {entry["name"]: entry for entry in row.summary}
        cells = []
        for name, _, _ in names:
            found = entries.get(name, {"metrics": {}})["metrics"]
            # Adversarial questions have no gold, and so another metric.
            chosen = headline(found) if found else ""
            cell = _with_interval(found.get(chosen))
            cells.append(cell if chosen in ("", headline(metrics)) else f"{cell} ({chosen})")
        lines.append([row.name, *cells])
    return markdown_table(header, lines)


def _against(compared: Mapping[str, Mapping], metrics: Sequence[str]) -> str:
    lines = []
    for name, found in compared.items():
        cells = []
        for metric in metrics:
            entry = found.get(metric)
            cell = _with_interval(entry and entry | {"mean": entry["difference"]}, signed=True)
            if entry and entry["relative"] is not None:
                cell += f" ({100 * entry['relative']:+.0f} %)"
            cells.append(cell)
        lines.append([name, *cells])
    return markdown_table(["row", *metrics], lines)


def _kept(rows: Sequence[TableRow]) -> str:
    header = ["row", "memories", "their tokens", *OPERATIONS, "unreadable", "recovered"]
    header += [
        "unknown ids",
        "gone ids",
        "evidence shown",
        "all of it shown",
        "never stored",
        "not retrieved",
        "n with evidence",
        "without room",
    ]
    parts = ("recall", "complete", "never_stored", "not_retrieved")
    lines = []
    for row in rows:
        figures = row.row.figures
        evidence = figures["evidence"]
        lines.append(
            [
                row.name,
                f"{figures['bank']['items']:,}",
                f"{figures['bank']['tokens']:,}",
                *(f"{figures['operations'][name]:,}" for name in OPERATIONS),
                *(f"{figures[name]:,}" for name in ("unreadable", "recovered", "unknown_ids")),
                f"{figures.get('gone_ids', 0):,}",
                *(_percent(evidence[name]) for name in parts),
                f"{evidence['questions']:,}",
                f"{figures['memories_without_room']:,}",
            ]
        )
    return markdown_table(header, lines)


def _against_gold(rows: Sequence[TableRow]) -> str:
    events = [event for event in REPORTED if event]
    shares = [f"{event.key}_{what}" for event in events for what in ("precision", "recall")]
    asked = ("stale_answers", "cascade", "absence")
    header = ["row", *(f"{event.label} {what}" for event in events for what in ("P", "R"))]
    header += ["stale", "duplicates", "missing", "wrong deletes", "stale answers", *asked[1:]]
    lines = []
    for row in rows:
        found = row.row.figures.get("gold_operations", {})
        if found:
            cells = [_percent(found[name]) for name in (*shares, "stale", "duplicates")]
            numbers = [found[name] for name in ("missing", "wrong_deletes")]
            cells += ["–" if number is None else f"{number:,}" for number in numbers]
            lines.append([row.name, *cells, *(_percent(found[name]) for name in asked)])
    return markdown_table(header, lines)


def _asked(rows: Sequence[TableRow]) -> str:
    header = ["row", "stage", "calls", "prompt tokens", "generated tokens", "cut off"]
    header += ["prompts cut"]
    names = ("calls", "prompt_tokens", "tokens", "cut_off", "cut_prompts")
    lines = [
        [row.name, stage, *(f"{used[name]:,}" for name in names)]
        for row in rows
        for stage, used in row.row.figures["calls"].items()
    ]
    return markdown_table(header, lines)


def _with_interval(entry: Mapping | None, signed: bool = False) -> str:
    if entry is None:
        return "–"
    text = f"{100 * entry['mean']:{'+' if signed else ''}.2f}"
    for name in ("by_question", "by_conversation"):
        low, high = entry.get(name, (None, None))
        if low is not None:
            text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
