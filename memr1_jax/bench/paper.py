"""The figures of Memory-R1's tables (arXiv 2508.19828), corrected, to be printed next to ours.

They lie in `paper.json`: F1 (set of words), BLEU-1 and judge in percent, with a note wherever a
figure differs from the printed one or does not mean what its name says.
"""

import dataclasses
import functools
import importlib.resources
import json

from memr1_jax.run.markdown import markdown_table

TABLES = ("locomo", "scaling", "longmemeval", "longmemeval_baselines", "ablations")
FIGURES = ("F1", "BLEU-1", "judge")
OVERALL = "overall"


@dataclasses.dataclass(frozen=True)
class PaperColumn:
    """A column: number of the category or type of question, its true name, how many questions."""

    key: str
    name: str
    count: int


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """One method on one backbone; `figures` has F1, BLEU-1 and judge by the key of the column."""

    backbone: str
    method: str
    figures: dict[str, tuple[float, float, float]]
    decimals: int  # with which the paper prints them
    notes: tuple[str, ...]  # sentences


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A table of the paper; `notes` are sentences about the whole of it."""

    title: str
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class PaperLatency:
    """Seconds of one stage as the paper gives them: a number, a range or a bound, or "–"."""

    stage: str
    backbone: str
    variant: str
    p50: str
    p95: str


@functools.cache
def _content() -> dict:
    file = importlib.resources.files("memr1_jax.bench") / "paper.json"
    return json.loads(file.read_text(encoding="utf-8"))


def paper_table(name: str) -> PaperTable:
    """Returns the table `name` of `TABLES`; KeyError where there is none."""
    table, notes = _content()["tables"][name], _content()["notes"]
    rows = tuple(
        PaperRow(
            row["backbone"],
            row["method"],
            {key: tuple(figures) for key, figures in row["figures"].items()},
            row.get("decimals", table["decimals"]),
            tuple(notes[note] for note in row["notes"]),
        )
        for row in table["rows"]
    )
    columns = tuple(PaperColumn(*column) for column in table["columns"])
    return PaperTable(table["title"], columns, rows, tuple(notes[note] for note in table["notes"]))


def paper_latency() -> tuple[PaperLatency, ...]:
    """Returns latencies by stage, in the order of the pipeline."""
    return tuple(PaperLatency(**row) for row in _content()["latency"]["rows"])


def paper_markdown(name: str) -> str:
    """Formats a table in Markdown, cells as F1 / BLEU-1 / judge, with numbered notes below it."""
    table = paper_table(name)
    numbers = {}
    header = ["backbone", "method", *(f"{c.name} ({c.count})" for c in table.columns)]
    lines = []
    for row in table.rows:
        marks = [numbers.setdefault(note, len(numbers) + 1) for note in row.notes]
        method = row.method + "".join(f" [{mark}]" for mark in marks)
        lines.append([row.backbone, method, *(_cell(row, column) for column in table.columns)])
    below = [f"{' / '.join(FIGURES)} in percent, by number of questions.", *table.notes]
    below += [f"[{number}] {note}" for note, number in numbers.items()]
    text = markdown_table(header, lines, labels=2, title=table.title)
    return f"{text}\n\n" + "".join(f"{line}  \n" for line in below)


def _cell(row: PaperRow, column: PaperColumn) -> str:
    figures = row.figures.get(column.key)
    return "–" if figures is None else " / ".join(f"{x:.{row.decimals}f}" for x in figures)
