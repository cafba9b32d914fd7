"""Prints replies on a terminal: as text, tables or JSON."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from memr1_jax.run.progress import table

_COLUMNS = {  # of a table, by key of a reply
    "id": "id",
    "event": "event",
    "memory": "memory",
    "previous_memory": "before",
    "old_memory": "before",
    "new_memory": "after",
    "score": "score",
    "event_time": "time",
    "memories": "memories",
    "user_id": "user",
    "agent_id": "agent",
    "run_id": "run",
}


def shown(reply: Any, output: str) -> str:
    """Lays a reply out as `text`, `json` or `table`."""
    if output == "json":
        return json.dumps(reply, ensure_ascii=False, indent=2)
    if "answer" in reply:
        used = _rows(reply["memories"], output)
        return f"{reply['answer']}\n\n{used}" if reply["memories"] else reply["answer"]
    if "results" in reply:
        text = _rows(reply["results"], output)
        calls = [f"undo with --call {call}" for call in reply.get("calls", ())]
        return "\n".join([text, *calls])
    if "added" in reply:
        parts = [f"{name}\n{_rows(rows, output)}" for name, rows in reply.items() if rows]
        return "\n\n".join(parts) or "Nothing changed."
    plain = {name: value for name, value in reply.items() if name != "scopes"}
    lines = [f"{name}: {value}" for name, value in plain.items()]
    return "\n".join([*lines, *([_rows(reply["scopes"], output)] if "scopes" in reply else [])])


def _rows(rows: Iterable[Mapping[str, Any]], output: str) -> str:
    """Lays out a table, or lines: the time and the text, with what happened."""
    rows = list(rows)
    if output == "table" and rows:
        from rich.console import Console

        keys = [key for key in _COLUMNS if any(row.get(key) is not None for row in rows)]
        cells = [[_cell(row.get(key)) for key in keys] for row in rows]
        console = Console()
        with console.capture() as captured:
            table("", [_COLUMNS[key] for key in keys], cells, console=console)
        return captured.get().strip("\n")
    return "\n".join(map(_line, rows)) or "(none)"


def _line(row: Mapping[str, Any]) -> str:
    if "memories" in row:
        ids = ", ".join(f"{name}={value}" for name, value in row.items() if name != "memories")
        return f"{ids}: {row['memories']} memories"
    text = row.get("memory") or row.get("new_memory") or ""
    before = row.get("previous_memory") or row.get("old_memory")
    parts = [row.get("event"), _cell(row.get("score")), text, f"(was: {before})" if before else ""]
    line = "  ".join(part for part in parts if part)
    if row.get("explain"):
        line += "".join(f"\n    {name}: {value}" for name, value in row["explain"].items())
    return f"{line}  [{row.get('memory_id') or row.get('id')}]"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else " ".join(str(value).split())
