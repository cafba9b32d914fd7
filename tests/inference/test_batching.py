"""Batches of the few sizes that are compiled."""

import pytest

from memr1_jax.inference.batching import SIZES, padded, parts, rows_of


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (0, []),
        (1, [1]),
        (4, [1, 1, 1, 1]),
        (5, [5]),
        (9, [8, 1]),
        (16, [8, 8]),
        (17, [17]),
        (33, [32, 1]),
        (70, [32, 32, 6]),
    ],
)
def test_most_of_a_batch_are_requests(count, sizes):
    found = list(parts(range(count)))
    assert [len(part) for part in found] == sizes
    assert [item for part in found for item in part] == list(range(count))


@pytest.mark.parametrize("count", range(1, 33))
def test_batches_have_few_sizes(count):
    assert rows_of(count) in SIZES and rows_of(count) >= count
    assert len(padded([1] * count)) == rows_of(count)
