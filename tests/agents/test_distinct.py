"""Equal prompts are computed once, and every row gets the result that it would get alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import io_callback

from memr1_jax.agents.distinct import find_distinct, once_each
from memr1_jax.models.decoder import Block
from memr1_jax.models.sampler import generate, greedy_sampling

ROWS, WIDTH = 12, 5
seen = []


def _note(tokens, length, active):
    rows = zip(tokens.tolist(), length.tolist(), active.tolist(), strict=True)
    seen.append([tuple(row[:size]) for row, size, on in rows if on])


def _work(prompt, active):
    """Computes something of each prompt alone, and notes on the host what it was asked."""
    io_callback(_note, None, prompt.tokens, prompt.length, active)
    real = jnp.arange(WIDTH) < prompt.length[:, None]
    weights = jnp.arange(1, WIDTH + 1)
    return (jnp.where(real, prompt.tokens, 0) * weights).sum(-1), -prompt.length


@functools.partial(jax.jit, static_argnames="size")
def _once(tokens, length, active, size):
    return once_each(_work, Block(tokens, length), active, (jnp.int32(7), jnp.int32(9)), size)


def _check(tokens, length, active, size):
    seen.clear()
    (sums, lengths), first = jax.device_get(_once(tokens, length, active, size))
    prompts = [tuple(row[:end]) for row, end in zip(tokens.tolist(), length.tolist(), strict=True)]
    weigh = [sum(t * (i + 1) for i, t in enumerate(prompt)) for prompt in prompts]
    np.testing.assert_array_equal(sums, np.where(active, weigh, 7))
    np.testing.assert_array_equal(lengths, np.where(active, -length, 9))
    distinct = {prompt for prompt, on in zip(prompts, active, strict=True) if on}
    computed = [prompt for part in seen for prompt in part]
    assert len(computed) == len(distinct) and set(computed) == distinct
    assert len(seen) == -(-len(distinct) // size)  # no part without work
    assert {prompts[row] for row in np.flatnonzero(first)} == distinct
    assert first.sum() == len(distinct)


@pytest.mark.parametrize("size", [4, 5, ROWS])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kinds=st.integers(1, 4))
def test_each_distinct_prompt_is_computed_once(size, seed, kinds):
    rng = np.random.default_rng(seed)
    pool = rng.integers(0, 3, (kinds, WIDTH)).astype(np.int32)
    tokens = pool[rng.integers(0, kinds, ROWS)]
    length = rng.integers(1, WIDTH + 1, ROWS).astype(np.int32)
    tokens = np.where(np.arange(WIDTH) < length[:, None], tokens, rng.integers(3, 9, tokens.shape))
    _check(tokens.astype(np.int32), length, rng.random(ROWS) < 0.8, size)


@pytest.mark.parametrize("size", [4, 5, ROWS])
def test_all_equal_none_equal_and_none_at_all(size):
    everyone = np.ones(ROWS, bool)
    length = np.full(ROWS, WIDTH, np.int32)
    _check(np.ones((ROWS, WIDTH), np.int32), length, everyone, size)
    assert len(seen) == 1
    different = np.arange(ROWS * WIDTH, dtype=np.int32).reshape(ROWS, WIDTH)
    _check(different, length, everyone, size)
    assert len(seen) == -(-ROWS // size)
    _check(different, length, ~everyone, size)
    assert not seen


def test_of_several_blocks_all_must_be_equal():
    first, second = (jnp.asarray(x, jnp.int32)[:, None] for x in ([1, 1, 1, 2], [5, 6, 5, 5]))
    long = jnp.ones(4, jnp.int32)
    short = long.at[0].set(0)  # whose token is padding
    for prompt, distinct in (
        ((Block(first, long), Block(second, long)), 3),
        ((Block(first, long), Block(second, short)), 4),
        (Block(first, long), 2),
    ):
        found = find_distinct(prompt, jnp.ones(4, bool))
        assert int(found.count) == distinct == int(found.leads.sum())


def test_prompts_of_one_digest_are_told_apart():
    factors = np.random.default_rng(0).integers(0, 2**32, 2, np.uint32) | np.uint32(1)
    first, second = (int(x) for x in factors)
    # Both sums are 0 modulo 2^32, and so are those of many more.
    twins = [(0, 0)]
    low = pow(second, -1, 2**32)
    for token in range(1, 400_000):
        other = -token * first * low % 2**32
        if other < 2**31:
            twins.append((token, other))
            break
    tokens = np.array([twins[0], twins[1], twins[0], twins[1]], np.int32)
    prompt = Block(jnp.asarray(tokens), jnp.full(4, 2))
    found = find_distinct(prompt, jnp.ones(4, bool))
    number = np.asarray(found.number)
    assert number[0] != number[1] and number[2] != number[3]
    np.testing.assert_array_equal(tokens[np.asarray(found.first)[number]], tokens)


def test_greedy_responses_are_those_of_every_row_alone(tiny):
    decoder, rng = tiny.model.decoder, np.random.default_rng(3)
    pool = rng.integers(0, decoder.config.vocab_size, (ROWS, 7)).astype(np.int32)

    def respond(prompt, active):
        samples = generate(
            *(decoder, tiny.model.params, (prompt,), *greedy_sampling()),
            **{"group": 1, "max_tokens": 6, "stop_tokens": (3,), "active": active[:, None]},
        )
        return Block(samples.tokens[:, 0], samples.length[:, 0])

    empty = Block(jnp.zeros(6, jnp.int32), jnp.int32(0))
    alone, once = jax.jit(respond), jax.jit(lambda *x: once_each(respond, *x, empty, 4))
    for rows in (rng.integers(0, 5, ROWS), np.arange(ROWS)):  # with duplicates, and without
        prompt = Block(jnp.asarray(pool[rows]), jnp.asarray(4 + rows % 4, jnp.int32))
        active = jnp.asarray(rng.random(len(rows)) < 0.9)
        expected = alone(prompt, active)
        found, first = once(prompt, active)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_array_equal(found.length, expected.length)
        assert int(first.sum()) == len(set(rows[np.asarray(active)].tolist()))
