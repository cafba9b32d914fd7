"""Plans batches of prompts: few shapes, and a prefix that prompts share is computed once."""

import dataclasses
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

# A shared prefix ends at a multiple of this, so that chance words after an instruction do not
# change it in every round.
_STRIDE = 32
# Prompts are taken apart into groups that share more where that saves this part of their tokens;
# for less, large batches are worth more.
_SAVING = 0.25
# A batch is divided where its rows of padding hold more tokens than this for every token of the
# response: reading those costs more then than decoding in two batches, on accelerators too.
_IDLE = 128


@dataclasses.dataclass(frozen=True)
class Batch:
    """Prompts to be answered together, by their places; their first `prefix` tokens are equal."""

    places: tuple[int, ...]
    prefix: int


def bucket(length: int) -> int:
    """Returns the smallest of 64, 128, 256, 384, 512, 768, 1024, ... that is at least `length`.

    There are few, since each is compiled, yet enough that padding stays small.
    """
    size = 64
    while size < length:
        even = size & (size - 1) == 0
        size = size * 2 if size < 256 else size * 3 // 2 if even else size * 4 // 3
    return size


def rows_of(count: int, most: int) -> int:
    """Returns the rows of a batch of `count` prompts: the next power of two, at most `most`."""
    return min(1 << (count - 1).bit_length(), most)


def plan(
    prompts: Sequence[np.ndarray],
    kinds: Sequence[Hashable],
    most_rows: int,
    most_tokens: int,
    response_lengths: Sequence[int],
    fixed: Sequence[int] = (),
) -> list[Batch]:
    """Arranges prompts into batches of one kind each; those of similar length go together.

    Args:
      prompts: token ids, each `[T]` int32.
      kinds: prompts of different kinds never share a batch.
      most_rows: rows of a batch at most.
      most_tokens: keys that a batch may hold, prompts and responses of all its rows together; a
        single prompt may be longer.
      response_lengths: room for the response of each prompt.
      fixed: how many leading tokens of each prompt are the same in every prompt of its kind, such
        as an instruction. They are a prefix even of a prompt that is alone, since others follow;
        more is shared only where it is much more.
    """
    fixed = fixed or [0] * len(prompts)
    groups: dict[Hashable, list[int]] = {}
    for place, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(place)
    batches = []
    for places in groups.values():
        # Big-endian bytes sort as the numbers do.
        ordered = sorted(places, key=lambda place: prompts[place].astype(">i4").tobytes())
        common = [
            _common(prompts[a], prompts[b]) for a, b in zip(ordered[:-1], ordered[1:], strict=True)
        ]
        lengths = [len(prompts[place]) for place in ordered]
        for start, stop in _clusters(lengths, common):
            least = min(fixed[place] for place in ordered[start:stop])
            prefix = _prefix(lengths[start:stop], common[start : stop - 1], least)
            members = sorted(ordered[start:stop], key=lambda place: (len(prompts[place]), place))
            while members:
                taken = _take(
                    [len(prompts[place]) - prefix for place in members],
                    [response_lengths[place] for place in members],
                    most_rows,
                    most_tokens,
                )
                batches.append(Batch(tuple(members[:taken]), prefix))
                members = members[taken:]
    return batches


def _take(lengths: list[int], responses: list[int], most_rows: int, most_tokens: int) -> int:
    """Counts the prompts, the shortest first, that the next batch takes.

    It holds no more than `most_tokens`, none is padded to more than twice what it needs, and rows
    of padding are few where prompts are long.
    """
    taken = min(len(lengths), most_rows)
    for count in range(2, taken + 1):
        width = bucket(lengths[count - 1])
        tokens = rows_of(count, most_rows) * (width + responses[count - 1])
        if tokens > most_tokens or width > 2 * bucket(lengths[0]):
            taken = count - 1
            break
    idle = (rows_of(taken, most_rows) - taken) * bucket(lengths[taken - 1])
    if idle > _IDLE * responses[taken - 1]:
        taken = 1 << (taken.bit_length() - 1)
    return taken


def _clusters(lengths: list[int], common: list[int]) -> Iterator[tuple[int, int]]:
    """Yields ranges of sorted prompts that are computed on one prefix each."""
    pending = [(0, len(lengths))]
    while pending:
        start, stop = pending.pop()
        inner = common[start : stop - 1]
        if not inner:
            yield start, stop
            continue
        shared = min(inner)
        ends = [start + i + 1 for i, value in enumerate(inner) if value == shared] + [stop]
        parts = list(zip([start, *ends[:-1]], ends, strict=True))
        apart = sum(_work(lengths[a:b], common[a : b - 1]) for a, b in parts)
        whole = _work(lengths[start:stop], inner)
        if whole - apart >= _SAVING * whole:
            pending.extend(reversed(parts))
        else:
            yield start, stop


def _work(lengths: list[int], common: list[int]) -> int:
    """Counts the prompt tokens that are computed for a cluster."""
    prefix = _prefix(lengths, common)
    return prefix + sum(lengths) - len(lengths) * prefix


def _prefix(lengths: list[int], common: list[int], fixed: int = 0) -> int:
    """Counts the leading tokens that a cluster shares; each prompt keeps one of its own or more."""
    shared = min(common, default=fixed)
    if fixed < shared < 2 * fixed:
        shared = fixed
    return min(shared, min(lengths) - 1) // _STRIDE * _STRIDE


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """Counts the leading tokens that are equal."""
    length = min(len(first), len(second))
    different = first[:length] != second[:length]
    return int(np.argmax(different)) if different.any() else length
