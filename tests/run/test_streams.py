"""Streams of random numbers: the same for a name, different for different ones."""

import itertools

import jax
import numpy as np

from memr1_jax.run.streams import named_key, run_generator, run_key, stable_hash

NAMES = (
    (),
    ("manager",),
    ("answer",),
    *itertools.product(("manager", "answer"), ("rollout", "mini_batches", "critic", "adapters")),
    ("trunk",),
)


def test_a_name_means_the_same_in_every_process():
    assert stable_hash("manager", "rollout") == 1715298569
    first, second = (run_key(7, "manager", "rollout") for _ in range(2))
    np.testing.assert_array_equal(jax.random.key_data(first), jax.random.key_data(second))


def test_streams_differ_by_seed_and_by_name():
    keys = [jax.random.key_data(run_key(seed, *names)) for seed in (0, 1) for names in NAMES]
    assert len({tuple(np.asarray(key).tolist()) for key in keys}) == 2 * len(NAMES)
    draws = [
        run_generator(seed, agent, "order", part=part).permutation(50).tolist()
        for seed, agent, part in itertools.product((0, 1), ("manager", "answer"), (0, 1))
    ]
    assert len(set(map(tuple, draws))) == 8


def test_a_named_stream_is_none_of_the_counted_ones():
    """Steps and rows are folded in as small numbers, names as large ones."""
    key = jax.random.key(0)
    counted = jax.vmap(lambda i: jax.random.key_data(jax.random.fold_in(key, i)))(np.arange(10_000))
    for names in NAMES[1:]:
        found = np.asarray(jax.random.key_data(named_key(key, *names)))
        assert not (np.asarray(counted) == found).all(-1).any()
