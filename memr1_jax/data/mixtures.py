"""Mixtures of data sets: which ones a run names, and the rows that its batches draw from each.

    --data=locomo:3,synthetic:1,msc:1

A batch holds rows of each part in proportion to its weight; chance decides on fractions of a row.
Each part has epochs of its own. A batch is a function of seed and step, so that a resumed run sees
the data that the uninterrupted one saw.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.run.streams import run_generator

SOURCES = ("locomo", "synthetic", "own", "msc")
_FILELESS = ("synthetic",)


@dataclasses.dataclass(frozen=True)
class Part:
    """Describes a part of a mixture: its name, its share of a batch, and its rows of the data."""

    name: str
    share: float
    rows: np.ndarray


def parse_mixture(text: str) -> dict[str, float]:
    """Reads `--data`: the weight of each data set by its name; one that gives no weight has 1.

    Raises:
      UserError: a name is no data set or stands there twice, or a weight makes no sense.
    """
    weights: dict[str, float] = {}
    for item in text.split(","):
        name, colon, weight = item.strip().partition(":")
        if name not in SOURCES:
            raise UserError(
                f"--data={text} names {name!r}, which is none of {', '.join(SOURCES)}. A mixture"
                " gives weights, as locomo:3,synthetic:1."
            )
        if name in weights:
            raise UserError(f"--data={text} names {name} twice. Give each data set one weight.")
        weights[name] = _weight(text, name, weight) if colon else 1.0
    if not any(weights.values()):
        raise UserError(f"--data={text} gives every data set the weight 0. Raise one of them.")
    return weights


def _weight(text: str, name: str, weight: str) -> float:
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(
            f"--data={text}: the weight of {name} is {weight!r} and must be a number, 0 or more."
        )
    return value


def parse_paths(paths: str, sources: Sequence[str]) -> dict[str, str]:
    """Reads `--data_path` for several data sets: "locomo=FILE,own=FILE", by name.

    A path alone belongs to the one data set that is read from a file.

    Raises:
      UserError: a path belongs to none of the data sets, or to more than one.
    """
    files = [source for source in sources if source not in _FILELESS]
    if not paths:
        return {}
    if len(files) == 1 and not paths.startswith(f"{files[0]}="):
        return {files[0]: paths}
    found = {}
    for item in paths.split(","):
        name, equals, path = item.strip().partition("=")
        if not equals or name not in files or name in found:
            raise UserError(
                f"--data_path={paths} must name one file for each data set of --data, as"
                f" {','.join(f'{name}=FILE' for name in files)}."
            )
        found[name] = path
    return found


def mixture_parts(
    weights: Mapping[str, float], sources: Sequence[str], rows_of: np.ndarray | None = None
) -> tuple[Part, ...]:
    """Divides rows into the parts of a mixture; those without a row or a weight have no share.

    Args:
      weights: by the name of each part.
      sources: the name of the part that each row belongs to.
      rows_of: tells which rows there are to divide; None for all.

    Raises:
      UserError: no part with a weight has rows.
    """
    of_row = np.asarray(sources)
    present = np.ones(len(of_row), bool) if rows_of is None else rows_of
    rows = {name: np.flatnonzero(present & (of_row == name)).astype(np.int32) for name in weights}
    drawn = {name: weight for name, weight in weights.items() if weight and len(rows[name])}
    if not drawn:
        raise UserError(
            "No data set of --data with a weight above 0 has anything for this agent to learn from."
            " Raise the weight of another one, or change --agent."
        )
    total = math.fsum(drawn.values())
    return tuple(Part(name, weight / total, rows[name]) for name, weight in drawn.items())


def mixed_rows(
    seed: int, step: int, parts: Sequence[Part], batch: int, agent: str = ""
) -> np.ndarray:
    """Picks the rows `[batch]` of a mixture's batch at `step`, in random order.

    Every step lays one comb of `batch` teeth, shifted by chance, over the parts laid end to end
    (systematic sampling), so that the number of rows of a part differs from its share by less than
    one and equals it on average.
    """
    shifts = run_generator(seed, agent, "mixture").random(step + 1)
    ends = np.cumsum([part.share for part in parts])
    ends[-1] = 1.0
    before = np.zeros(step + 1, np.int64)  # teeth of each step in the parts so far
    picked = []
    for part, end in zip(parts, ends, strict=True):
        until = np.clip(np.ceil(batch * end - shifts), 0, batch).astype(np.int64)
        counts, before = until - before, until
        start = int(counts[:-1].sum())
        order = dealt(
            len(part.rows),
            range(start, start + int(counts[-1])),
            lambda epoch, name=part.name: run_generator(seed, agent, "order", name, part=epoch),
        )
        picked.append(part.rows[order])
    rows = np.concatenate(picked)
    return rows[run_generator(seed, agent, "places", part=step).permutation(batch)]


def dealt(rows: int, places: range, generator: Callable[[int], np.random.Generator]) -> np.ndarray:
    """Picks rows by their places in epochs of shuffled rows, one after another.

    Args:
      rows: of an epoch.
      places: the wanted ones, counted from the first epoch on.
      generator: of an epoch.
    """
    epochs = {
        epoch: generator(epoch).permutation(rows)
        for epoch in range(places.start // rows, max(places.start, places.stop - 1) // rows + 1)
    }
    return np.array([epochs[place // rows][place % rows] for place in places], np.int32)
