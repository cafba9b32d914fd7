"""Attention in parts against attention at once, and both against a softmax over repeated keys."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.models.attention import Source, attend
from memr1_jax.models.decoder import REMAT_POLICIES

HEADS, KV_HEADS, SIZE = 4, 2, 8
ALL_AT_ONCE = 2**40
STEP = 12  # queries: of the 37 of prompts, three steps
# Leading axes of each block of a chain, its length, and how much of each row is visible.
CHAINS = {
    "instruction": (((), 21, 21),),
    "prompts": (((), 5, 4), ((3,), 37, [37, 20, 1])),
    "responses": (((), 5, 4), ((2,), 7, [7, 3]), ((2, 3), 19, [[19, 2, 8], [1, 19, 19]])),
    "empty instruction": (((), 0, 0), ((2,), 16, [16, 9])),
}


def chain(name, dtype=jnp.float32):
    """Queries `[*lead, T, N, H]` of the last block, all blocks' keys and values, and limits."""
    draw = np.random.default_rng(0)

    def array(*shape):
        return jnp.asarray(draw.normal(size=shape), dtype)

    blocks = CHAINS[name]
    lead, length, _ = blocks[-1]
    query = array(*lead, length, HEADS, SIZE)
    pairs = [
        (array(*lead, KV_HEADS, size, SIZE), array(*lead, KV_HEADS, size, SIZE))
        for lead, size, _ in blocks
    ]
    limits = [jnp.asarray(limit) for *_, limit in blocks[:-1]] + [jnp.arange(length) + 1]
    return query, pairs, limits


def firsts(name):
    """Returns the first key of each block that each query of the last one sees."""
    draw = np.random.default_rng(1)
    *_, (lead, length, _) = CHAINS[name]
    seen = [draw.integers(0, size + 1, (*lead, length)) for *_, size, _ in CHAINS[name]]
    return [jnp.asarray(first) for first in (*seen[:-1], np.minimum(seen[-1], np.arange(length)))]


def attended(query, pairs, limits, score_bytes, name="", step=128):
    sources = [
        Source(*pair, limit, causal=limit is limits[-1], first=first)
        for pair, limit, first in zip(
            pairs, limits, firsts(name) if name else [None] * len(pairs), strict=True
        )
    ]
    return attend(query, sources, score_bytes, step)


def plain(query, pairs, limits, name=""):
    """Computes the same over one row of keys a query row, repeated over group and heads."""
    *lead, length, _, _ = query.shape
    keys, values, seen = [], [], []
    for block, ((key, value), limit) in enumerate(zip(pairs, limits, strict=True)):
        extra = len(lead) - (key.ndim - 3)
        size = key.shape[-2]
        index = jnp.arange(size)
        if limit is limits[-1]:
            visible = index < limit[:, None]
        else:
            visible = index < limit.reshape(*limit.shape, *[1] * (extra + 2))
        if name:
            visible &= index >= firsts(name)[block][..., None]
        seen.append(jnp.broadcast_to(visible, (*lead, length, size)))
        shape = (*key.shape[:-3], *[1] * extra, *key.shape[-3:])
        wide = (*lead, KV_HEADS, size, SIZE)
        for found, array in ((keys, key), (values, value)):
            found.append(jnp.broadcast_to(array.reshape(shape), wide))
    shared = HEADS // KV_HEADS
    key, value = (jnp.repeat(jnp.concatenate(x, -2), shared, axis=-3) for x in (keys, values))
    score = jnp.einsum("...tnh,...nsh->...nts", query * SIZE**-0.5, key)
    score = jnp.where(jnp.concatenate(seen, -1)[..., None, :, :], score, -jnp.inf)
    return jnp.einsum("...nts,...nsh->...tnh", jax.nn.softmax(score, axis=-1), value)


@functools.partial(jax.jit, static_argnums=(0, 4))
def value_and_gradients(form, query, pairs, limits, argument=()):
    """Returns the output, and gradients of a weighted sum of it."""

    def weighted(query, pairs):
        output = form(query, pairs, limits, *argument)
        weights = jnp.cos(jnp.arange(output.size)).reshape(output.shape)
        return (output.astype(jnp.float32) * weights).sum(), output

    gradients, output = jax.grad(weighted, (0, 1), has_aux=True)(query, pairs)
    return output, gradients


def largest_error(found, expected):
    """Returns the largest difference of any leaf, relative to the leaf's largest entry."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(
        float(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max() / jnp.abs(b).max())
        for a, b in pairs
        if a.size
    )


@pytest.mark.parametrize("name", CHAINS)
def test_parts_are_the_whole_and_the_whole_is_the_softmax(name):
    given = chain(name)
    at_once = value_and_gradients(attended, *given, (ALL_AT_ONCE,))
    in_parts = value_and_gradients(attended, *given, (1,))  # parts of 8 queries, the fewest
    assert largest_error(in_parts, at_once) < 1e-6
    assert largest_error(at_once, value_and_gradients(plain, *given)) < 2e-6


@pytest.mark.parametrize("name", ["prompts", "responses"])
def test_windows_hide_earlier_keys_in_parts_and_at_once(name):
    given = chain(name)
    at_once = value_and_gradients(attended, *given, (ALL_AT_ONCE, name))
    in_parts = value_and_gradients(attended, *given, (1, name))
    assert largest_error(in_parts, at_once) < 1e-6
    assert largest_error(at_once, value_and_gradients(plain, *given, (name,))) < 2e-6
    assert largest_error(at_once, value_and_gradients(plain, *given)) > 0.1


@pytest.mark.parametrize("window", ["", "prompts"])
def test_steps_of_a_long_block_are_the_whole(window):
    given = chain("prompts")
    expected = value_and_gradients(plain, *given, (window,))
    for score_bytes in (ALL_AT_ONCE, 1):
        in_steps = value_and_gradients(attended, *given, (score_bytes, window, STEP))
        assert largest_error(in_steps, expected) < 2e-6


def test_steps_do_not_score_keys_behind_their_end():
    query, pairs, limits = chain("prompts")

    def scores(step):
        made = jax.make_jaxpr(lambda q: attended(q, pairs, limits, ALL_AT_ONCE, step=step))(query)
        return re.findall(r":f32\[3,2,1,(\d+),2,(\d+)\] = exp", str(made))

    assert scores(128) == [("37", "37")]
    assert scores(STEP) == [("13", "13"), ("13", "26"), ("11", "37")]


def test_the_backward_pass_computes_weights_once():
    query, pairs, limits = chain("responses")
    form = jax.checkpoint(
        lambda q: attended(q, pairs, limits, ALL_AT_ONCE), policy=REMAT_POLICIES["dots"]
    )
    made = jax.make_jaxpr(jax.grad(lambda q: form(q).sum()))(query)
    assert str(made).count(" = exp ") == 2 * len(pairs)  # in the forward pass, and there


def test_in_bfloat16_parts_lose_no_more_than_the_whole():
    exact = value_and_gradients(attended, *chain("responses"), (ALL_AT_ONCE,))
    given = chain("responses", jnp.bfloat16)
    whole, *parts = (
        largest_error(value_and_gradients(attended, *given, argument), exact)
        for argument in ((ALL_AT_ONCE,), (1,), (ALL_AT_ONCE, "", STEP // 2))
    )
    assert 1e-3 < whole < 3e-2
    assert max(parts) < 1.5 * whole


@pytest.mark.parametrize(("score_bytes", "loops"), [(ALL_AT_ONCE, 0), (1, 1)])
def test_short_queries_are_one_program_without_a_loop(score_bytes, loops):
    query, pairs, limits = chain("responses")
    text = str(jax.make_jaxpr(lambda q: attended(q, pairs, limits, score_bytes))(query))
    assert text.count(" = scan[") == loops


def test_no_array_holds_the_scores_of_all_queries():
    query, pairs, limits = chain("prompts")
    rows, length, keys = query.shape[0], query.shape[1], 5 + 37

    def gradient(query, pairs, score_bytes):
        return jax.grad(lambda q, p: attended(q, p, limits, score_bytes).sum(), (0, 1))(
            query, pairs
        )

    def temporaries(score_bytes):
        compiled = jax.jit(gradient, static_argnums=2).lower(query, pairs, score_bytes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    scores = rows * HEADS * length * keys * 4
    part = rows * HEADS * 8 * keys * 4
    assert temporaries(ALL_AT_ONCE) > 2 * scores
    # The rest are queries, keys and what was found, which are not much smaller here.
    assert temporaries(part) < temporaries(ALL_AT_ONCE) - scores / 2
