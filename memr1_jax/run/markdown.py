"""Tables as text: in Markdown, and with aligned columns for a terminal."""

import re
from collections.abc import Sequence
from typing import Any

_BEFORE_PIPE = re.compile(r"(\\*)\|")


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], labels: int = 1, title: str = ""
) -> str:
    """Writes a table whose columns after the first `labels` are set to the right.

    A cell is one line: line breaks become spaces, and `|` is escaped, with any backslashes before
    it. A title stands above the table. There is no line break at the end.
    """
    rule = ["---"] * labels + ["---:"] * (len(columns) - labels)
    lines = [map(_cell, columns), rule, *(map(_cell, row) for row in rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{title}\n\n{body}" if title else body


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Writes a table whose columns are as wide as their longest cell; floats have three decimals.

    There is no line break at the end.
    """
    cells = [[_plain(value) for value in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _plain(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else " ".join(str(value).splitlines())


def _cell(value: Any) -> str:
    line = " ".join(str(value).splitlines())
    return _BEFORE_PIPE.sub(r"\1\1\\|", line)
