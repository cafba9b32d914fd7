"""Notes about what a reader left out or changed, reported once when a file is loaded."""

import collections
import os
import warnings
from collections.abc import Iterable
from typing import NamedTuple


class Note(NamedTuple):
    """Something that was left out or changed: what (a plural), its place, what stood there."""

    what: str
    place: str
    quoted: str = ""


def tell(path: str | os.PathLike, notes: Iterable[Note]) -> None:
    """Warns of what is noted about a file: how often each thing occurred, and where first."""
    first: dict[str, str] = {}
    counts: collections.Counter[str] = collections.Counter()
    for what, place, quoted in notes:
        where = place.removeprefix(f"{path}, ")
        first.setdefault(what, f"{where}, {quoted[:80]!r}" if quoted else where)
        counts[what] += 1
    told = "; ".join(
        f"{what}: {count} (the first: {first[what]})" for what, count in counts.items()
    )
    if told:
        warnings.warn(f"{path}: {told}.", stacklevel=2)
