"""Token rows of any lengths as batches of few shapes."""

from collections.abc import Iterator, Sequence

import numpy as np


def padded_batches(
    rows: Sequence[Sequence[int]], widths: Sequence[int], count: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Yields places of rows, tokens `[count, width]` and lengths `[count]`, right padded.

    A row's width is the smallest that holds it, and every batch has `count` rows, so that
    results for a row do not depend on its neighbours, not even in the last bit.
    """
    groups: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(next(size for size in widths if size >= len(row)), []).append(place)
    for width, places in groups.items():
        for start in range(0, len(places), count):
            part = places[start : start + count]
            tokens, length = np.zeros((count, width), np.int32), np.ones(count, np.int32)
            for index, place in enumerate(part):
                tokens[index, : len(rows[place])] = rows[place]
                length[index] = len(rows[place])
            yield part, tokens, length
