"""Progress of a run on the terminal, and as plain lines where there is none."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from memr1_jax.parallel.distributed import is_main


class Progress:
    """One line about a run: step, reward, loss, tokens a second, time left.

    On a terminal the line is a bar that is redrawn in place; elsewhere it is printed for the first
    step, the last, and every `seconds` between, without control codes.
    """

    def __init__(self, total: int, description: str, *, start: int, seconds: float, console: Any):
        """Starts at `start`; use `progress_bar`, which also stops the drawing."""
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._total, self._description, self._seconds = total, description, seconds
        self._step = self._first = start
        self._first_time = self._printed = None
        self._console = console
        self._bar = None
        if console.is_terminal:
            text = TextColumn("{task.fields[line]}", markup=False)
            self._bar = Bar(TextColumn("{task.description}"), BarColumn(), text, console=console)
            line = f"{start}/{total}"
            self._task = self._bar.add_task(description, total=total, completed=start, line=line)
            self._bar.start()

    def update(
        self,
        step: int,
        *,
        reward: float | None = None,
        loss: float | None = None,
        tokens_per_second: float | None = None,
    ) -> None:
        """Shows that `step` is done; what is None is left out."""
        now = time.monotonic()
        if self._first_time is None:
            # The first step compiles: the pace is measured from its end.
            self._first, self._first_time = step, now
        self._step = step
        parts = [f"{step}/{self._total}"]
        if reward is not None:
            parts.append(f"reward {float(reward):.3f}")
        if loss is not None:
            parts.append(f"loss {float(loss):.4g}")
        if tokens_per_second is not None:
            parts.append(f"{float(tokens_per_second):,.0f} tokens/s")
        if step > self._first and step < self._total:
            pace = (now - self._first_time) / (step - self._first)
            parts.append(f"{_clock(pace * (self._total - step))} left")
        line = "  ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, line=line)
        elif self._printed is None or step >= self._total or now - self._printed >= self._seconds:
            self._printed = now
            # Straight to the file: rich would wrap the line at 80 columns.
            print(f"{self._description}  {line}", file=self._console.file, flush=True)

    def resize(self, total: int) -> None:
        """Changes the last step, once it is known."""
        self._total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)

    def describe(self, description: str) -> None:
        """Says what is happening now; the pace of something else is measured afresh."""
        if description == self._description:
            return
        self._description, self._first_time = description, None
        if self._bar is not None:
            self._bar.update(self._task, description=description)

    def stop(self) -> None:
        """Leaves the last state on the terminal."""
        if self._bar is not None:
            self._bar.stop()


@contextlib.contextmanager
def progress_bar(
    total: int, description: str, *, start: int = 0, seconds: float = 5.0, console: Any = None
) -> Iterator[Progress]:
    """Shows the progress of a loop; call `update` on the result after every step.

    Args:
        total: the last step.
        description: what the bar counts, in a few words.
        start: steps done before, in a resumed run.
        seconds: time between plain lines where the output is not a terminal.
        console: a `rich.console.Console`; by default one on standard output.
    """
    if console is None:
        console = _console() if is_main() else _silence()
    progress = Progress(total, description, start=start, seconds=seconds, console=console)
    try:
        yield progress
    finally:
        progress.stop()


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, console: Any = None
) -> None:
    """Prints a table; numbers are set to the right, floats with four significant digits.

    Args:
        title: a line above the table.
        columns: the headings.
        rows: one sequence of cells for each row, as long as `columns`.
        console: a `rich.console.Console`; by default one on standard output.
    """
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    console = console or _console()
    body = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        body.add_column(Text(str(column)), justify="right" if numeric else "left")
    for row in rows:
        body.add_row(*(Text(_cell(value)) for value in row))
    if not console.is_terminal:
        # A file has no width: do not cut cells at 80 columns.
        wide = console.options.update(width=10_000)
        console.width = max(console.width, Measurement.get(console, wide, body).maximum)
    console.print(body)


def _console():
    from rich.console import Console

    return Console()


def _silence():
    """Makes a console for processes other than the first, whose progress is the same."""
    import io

    from rich.console import Console

    return Console(file=io.StringIO())


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    """Spells hours, minutes and seconds as a clock shows them: 0:05, 12:30, 3:07:09."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
