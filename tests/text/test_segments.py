import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.text.segments import concatenate, pack


def test_concatenate_leaves_no_padding_between_pieces():
    first = jnp.array([[1, 2, 0], [3, 0, 0]]), jnp.array([2, 1])
    empty = jnp.zeros((2, 2), jnp.int32), jnp.array([0, 0])
    last = jnp.array([[7, 8], [9, 0]]), jnp.array([2, 1])
    tokens, length = jax.vmap(lambda *pieces: concatenate(pieces))(first, empty, last)
    np.testing.assert_array_equal(tokens, [[1, 2, 7, 8, 0, 0, 0], [3, 9, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(length, [4, 2])


def test_pack_drops_the_least_relevant_and_never_the_required():
    tokens = jnp.array([[1, 1], [2, 2], [3, 3], [4, 0], [5, 5]])
    length = jnp.array([2, 2, 2, 1, 2])
    priority = jnp.array([0, 2, 1, 3, 0])
    packed = pack(tokens, length, priority, 7)
    np.testing.assert_array_equal(packed.tokens, [1, 1, 3, 3, 5, 5, 0])
    assert (int(packed.length), int(packed.dropped), bool(packed.overflow)) == (6, 2, False)


def test_pieces_of_one_priority_stay_or_fall_together():
    tokens = jnp.array([[1], [2], [3], [4]])
    packed = pack(tokens, jnp.array([1, 1, 1, 0]), jnp.array([0, 1, 1, 1]), 2)
    np.testing.assert_array_equal(packed.tokens, [1, 0])
    assert int(packed.dropped) == 2


def test_required_text_is_cut_and_reported():
    packed = pack(jnp.array([[1, 2], [3, 4]]), jnp.array([2, 2]), jnp.array([0, 0]), 3)
    np.testing.assert_array_equal(packed.tokens, [1, 2, 3])
    assert (int(packed.length), bool(packed.overflow)) == (3, True)


def _pack_by_hand(tokens, length, priority, capacity):
    sizes = [sum(int(n) for n, q in zip(length, priority, strict=True) if q <= p) for p in priority]
    kept = [p == 0 or size <= capacity for p, size in zip(priority, sizes, strict=True)]
    rows = zip(tokens, length, kept, strict=True)
    text = [int(t) for row, n, keep in rows if keep for t in row[:n]]
    dropped = sum(not keep and n > 0 for n, keep in zip(length, kept, strict=True))
    return text[:capacity], dropped, len(text) > capacity


def test_pack_equals_a_loop():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 99, (200, 8, 5)).astype(np.int32)
    length = rng.integers(0, 6, (200, 8)).astype(np.int32)
    priority = rng.integers(0, 5, (200, 8)).astype(np.int32)
    run = jax.jit(jax.vmap(lambda t, n, p: pack(t, n, p, 16)))
    packed = jax.tree.map(np.asarray, run(tokens, length, priority))
    for i in range(200):
        text, dropped, overflow = _pack_by_hand(tokens[i], length[i], priority[i], 16)
        assert packed.tokens[i].tolist() == text + [0] * (16 - len(text))
        assert packed.length[i] == len(text)
        assert (packed.dropped[i], packed.overflow[i]) == (dropped, overflow)
