"""The parts of MemoryOS: pages of a dialogue, and segments of pages about one subject."""

import collections
import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from memr1_jax.bench.systems.protocol import Memory
from memr1_jax.data.types import Turn
from memr1_jax.text.plain import one_line


@dataclasses.dataclass(frozen=True)
class Page:
    """The words of the first speaker and the second one's reply; one may be missing."""

    text: str
    time: str
    sources: tuple[str, ...]

    @property
    def dated(self) -> str:
        """Returns the text after its time."""
        return f"({self.time}) {self.text}"


@dataclasses.dataclass(frozen=True)
class Segment:
    """Pages, by their ids, about one subject.

    `fresh` are those that no profile was drawn from yet, `latest` is the number of the session
    that added the last page.
    """

    summary: str
    keywords: frozenset[str]
    key: np.ndarray
    pages: tuple[int, ...]
    fresh: tuple[int, ...]
    latest: int

    def heat(self, session: int) -> float:
        """Sums fresh pages and recency: e to the minus sessions since the last page.

        The original also adds how often a question met the segment. Here questions leave no trace,
        and time is counted in sessions, since a replayed dialogue has no clock.
        """
        return len(self.fresh) + math.exp(self.latest - session)


def pages_of(
    turns: Sequence[Turn],
    first: str,
    time_of: Callable[[Turn], str],
    keep_unpaired: bool,
    counts: collections.Counter,
) -> list[Page]:
    """Returns the pages of a session's turns.

    In the original several turns of one speaker in a row overwrite each other, and a page that
    lacks a side is dropped. The turns lost are counted. With `keep_unpaired` turns in a row are
    joined, and every page is kept.
    """
    sides: list[tuple[list[Turn], list[Turn]]] = []
    for turn in turns:
        if turn.speaker == first:
            if not sides or sides[-1][1]:
                sides.append(([], []))
            sides[-1][0].append(turn)
        else:
            if not sides:
                sides.append(([], []))
            sides[-1][1].append(turn)
    pages = []
    for own, other in sides:
        if not keep_unpaired:
            kept = [own[-1], other[-1]] if own and other else []
            counts["turns_dropped"] += len(own) + len(other) - len(kept)
            counts["pages_dropped"] += not kept
            if not kept:
                continue
        else:
            kept = [*own, *other]
        text = " ".join(f"{turn.speaker}: {one_line(turn.content)}" for turn in kept)
        pages.append(Page(text, time_of(kept[-1]), tuple(turn.dia_id for turn in kept)))
    counts["pages"] += len(pages)
    return pages


def overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """Returns the words in both sets as a share of those in either."""
    return len(first & second) / len(first | second) if first or second else 0.0


def joined(pages: Sequence[Page], text: str, owner: str) -> Memory:
    """Returns a memory that was drawn from pages; its time is that of the last."""
    sources = tuple(dict.fromkeys(source for page in pages for source in page.sources))
    return Memory(text, pages[-1].time, owner, sources)
