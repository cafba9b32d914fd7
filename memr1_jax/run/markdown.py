"""Tables in Markdown, the one place that writes them."""

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


def _cell(value: Any) -> str:
    line = " ".join(str(value).splitlines())
    return _BEFORE_PIPE.sub(r"\1\1\\|", line)
