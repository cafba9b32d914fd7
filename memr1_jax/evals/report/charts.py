"""Charts as geometry: where lines, areas and ticks fall in a small picture that scales.

The markup is in `page/chart.html`, the colours in `page/report.css`; a pointer over the picture
reads `Drawing.data`.
"""

import dataclasses
import json
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 420, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 410, 10, 184
_MOST = 300  # points of a line; longer ones are drawn as means of equal parts


@dataclasses.dataclass(frozen=True)
class Line:
    """Values by step, all finite; `tone` names the colour, `dots` draws points without a line."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    tone: str = "first"
    dots: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
    """Lines over the training steps, or with `stacked` areas on top of each other.

    Stacked lines have the same steps. `from_zero` keeps 0 in the picture where no value is below.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    stacked: bool = False
    from_zero: bool = True


@dataclasses.dataclass(frozen=True)
class Mark:
    """One path of the picture; `shape` is "line", "dots" or "area"."""

    shape: str
    tone: str
    path: str


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A chart in pixels of a picture of `WIDTH` by `HEIGHT`; ticks are `(place, label)`."""

    title: str
    unit: str
    description: str
    marks: tuple[Mark, ...]
    columns: tuple[tuple[float, str], ...]
    rows: tuple[tuple[float, str], ...]
    legend: tuple[tuple[str, str], ...]  # tone and name
    data: str  # JSON: lines with steps and values, and where the steps lie
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    bottom: int = _BOTTOM


def draw(chart: Chart) -> Drawing:
    """Lays out a chart.

    Raises:
      ValueError: it has no line, or a line without values.
    """
    lines = [_thinned(line) for line in chart.lines]
    if not lines or not all(line.values for line in lines):
        raise ValueError(f"The chart {chart.title!r} has nothing to draw.")
    tops = [list(line.values) for line in lines]
    if chart.stacked:
        for below, above in zip(tops, tops[1:], strict=False):
            above[:] = [x + y for x, y in zip(below, above, strict=True)]
    values = [value for top in tops for value in top]
    ticks = nice_ticks(*_bounds(min(values), max(values), chart.from_zero or chart.stacked))
    first = min(line.steps[0] for line in lines)
    last = max(line.steps[-1] for line in lines)

    def across(step):
        share = 0.5 if last == first else (step - first) / (last - first)
        return round(_LEFT + share * (_RIGHT - _LEFT), 1)

    def down(value):
        return round(_BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_BOTTOM - _TOP), 1)

    marks = []
    for index, (line, top) in enumerate(zip(lines, tops, strict=True)):
        points = [(across(step), down(value)) for step, value in zip(line.steps, top, strict=True)]
        if chart.stacked:
            floor = tops[index - 1] if index else [ticks[0]] * len(top)
            below = [(x, down(value)) for (x, _), value in zip(points, floor, strict=True)]
            marks.append(Mark("area", line.tone, _path(points + below[::-1]) + "Z"))
        elif line.dots or len(points) == 1:
            marks.append(Mark("dots", line.tone, "".join(f"M{x} {y}h0" for x, y in points)))
        else:
            marks.append(Mark("line", line.tone, _path(points)))
    data = {
        "lines": [
            {
                "name": line.name,
                "steps": list(line.steps),
                "values": [float(f"{value:.4g}") for value in line.values],
            }
            for line in lines
        ],
        "across": [_LEFT, _RIGHT, first, last],
        "unit": chart.unit,
    }
    return Drawing(
        title=chart.title,
        unit=chart.unit,
        description=describe(chart),
        marks=tuple(marks),
        columns=tuple(
            (across(step), f"{step:g}")
            for step in nice_ticks(first, last, most=6)
            if first <= step <= last and step == int(step)
        )
        or ((across(first), f"{first:g}"),),
        rows=tuple((down(value), f"{value:.10g}") for value in ticks),
        legend=tuple((line.tone, line.name) for line in lines),
        data=json.dumps(data, separators=(",", ":")),
    )


def describe(chart: Chart) -> str:
    """Describes the chart for those who cannot see it: each line's first and last fifth."""
    parts = []
    raw = [line for line in chart.lines if line.dots]  # other lines are their means
    for line in raw or chart.lines:
        few = max(1, len(line.values) // 5)
        first, last = sum(line.values[:few]) / few, sum(line.values[-few:]) / few
        parts.append(f"{line.name} from {first:.3g} to {last:.3g}")
    steps = [step for line in chart.lines for step in (line.steps[0], line.steps[-1])]
    return (
        f"{chart.title} in {chart.unit}, steps {min(steps)} to {max(steps)}; means of the first and"
        f" the last fifth: {', '.join(parts)}."
    )


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns evenly spaced round numbers from at or below `low` to at or above `high`.

    At most about `most` of them; their distance is 1, 2 or 5 times a power of ten.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # all the same except for rounding
        high = low + (abs(low) or 1.0)
    raw = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _bounds(low, high, from_zero):
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


def _thinned(line: Line) -> Line:
    """Returns at most `_MOST` points: means of equally many values, each at its last step."""
    size = -(-len(line.values) // _MOST)
    if size <= 1:
        return line
    starts = range(0, len(line.values), size)
    parts = [line.values[start : start + size] for start in starts]
    return dataclasses.replace(
        line,
        steps=[line.steps[min(start + size, len(line.steps)) - 1] for start in starts],
        values=[sum(part) / len(part) for part in parts],
    )


def _path(points):
    return "M" + "L".join(f"{x} {y}" for x, y in points)
