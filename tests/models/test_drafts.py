"""Decoding with drafts against decoding one token at a time, and drafts against a plain search."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare
from small_decoder import CONFIG, random_chain, random_params

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.drafts import LOOKED_UP, copied, history_of, last_tokens
from memr1_jax.models.logprobs import response_statistics
from memr1_jax.models.sampler import Constraint, Sampling, generate

PROMPTS = 3000 if os.environ.get("MEMR1_SLOW") else 100
GROUP, RESPONSE, DRAFTS = 4, 16, 3
STOPS = (5, 17)
DECODER = Decoder(CONFIG)


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def blocks():
    """Returns an instruction and prompts that repeat themselves, so that there is what to copy."""
    instruction, prompt, _ = random_chain(np.random.default_rng(0), prompts=PROMPTS, prompt=9)
    return instruction, prompt


@partial(jax.jit, static_argnames=("stop_tokens", "drafts", "group"))
def sample(params, blocks, sampling, drafts, stop_tokens=STOPS, group=GROUP, **options):
    options = {"group": group, "max_tokens": RESPONSE, "stop_tokens": stop_tokens} | options
    return generate(DECODER, params, blocks, jax.random.key(3), sampling, drafts=drafts, **options)


def first_difference(a, b):
    """Returns the first place at which rows `[N, R]` differ; R where they are equal."""
    different = np.asarray(a) != np.asarray(b)
    return np.where(different.any(-1), different.argmax(-1), different.shape[-1])


def check_equal(found, expected):
    """Checks samples token for token; a rare draw may fall on another side of a rounded border."""
    flat = [np.asarray(x).reshape(-1, RESPONSE) for x in (found.tokens, expected.tokens)]
    assert (first_difference(*flat) < RESPONSE).sum() <= len(flat[0]) // 1000
    same = (np.asarray(found.tokens) == np.asarray(expected.tokens)).all(-1)
    np.testing.assert_array_equal(found.length[same], expected.length[same])
    np.testing.assert_array_equal(found.stopped[same], expected.stopped[same])
    np.testing.assert_allclose(found.logprobs[same], expected.logprobs[same], atol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, pytest.param(0.6, marks=pytest.mark.slow), 1.0])
def test_samples_are_those_without_drafts(params, blocks, temperature):
    sampling = Sampling.create(temperature)
    expected, found = (sample(params, blocks, sampling, drafts) for drafts in (0, DRAFTS))
    check_equal(found, expected)
    assert expected.passes is None
    length, passes = np.asarray(found.length), np.asarray(found.passes)
    assert (passes <= length).all() and (length <= 1 + (passes - 1) * (DRAFTS + 1)).all()
    assert length.sum() > 1.02 * passes.sum()  # drafts are taken
    assert not np.asarray(found.tokens)[np.arange(RESPONSE) >= length[..., None]].any()
    assert not np.asarray(found.logprobs)[np.arange(RESPONSE) >= length[..., None]].any()


def test_logprobs_are_the_trainers(params, blocks):
    samples = sample(params, blocks, Sampling.create(0.8), DRAFTS)
    statistics = jax.jit(partial(response_statistics, DECODER, chunk=16))
    expected = statistics(params, (*blocks, samples.block), 0.8).logprobs
    real = np.arange(RESPONSE) < np.asarray(samples.length)[..., None]
    np.testing.assert_allclose(samples.logprobs, np.where(real, expected, 0), atol=1e-4)


@pytest.mark.slow
def test_the_second_and_third_token_follow_their_distribution(params, blocks):
    group, temperature = 3000, 0.5
    vocab, (instruction, prompts) = CONFIG.vocab_size, blocks
    prompt = Block(prompts.tokens[:1], prompts.length[:1])
    given = (instruction, prompt)
    samples = sample(params, given, Sampling.create(temperature), DRAFTS, (), group=group)
    tokens = np.asarray(samples.tokens)[0]
    assert np.asarray(samples.passes).mean() < 0.97 * RESPONSE

    @jax.jit
    def following(tokens):  # the distribution after responses [N, T]
        response = Block(tokens[None], jnp.full((1, len(tokens)), tokens.shape[1]))
        hidden = DECODER.apply({"params": params}, (*given, response))[-1][0, :, -1]
        logits = DECODER.apply({"params": params}, hidden, method=Decoder.logits)
        return jax.nn.softmax(logits / temperature)

    for place in (1, 2):
        expected = np.asarray(following(jnp.asarray(tokens[:, :place]))).sum(0, dtype=np.float64)
        observed = np.bincount(tokens[:, place], minlength=vocab)
        many = expected > 5
        observed, expected = (np.append(x[many], x[~many].sum()) for x in (observed, expected))
        assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.slow
def test_rows_are_independent_and_may_be_silent(params, blocks):
    instruction, prompt = blocks
    everyone = sample(params, blocks, Sampling.create(), DRAFTS)
    active = np.random.default_rng(1).random((PROMPTS, GROUP)) < 0.5
    samples = sample(params, blocks, Sampling.create(), DRAFTS, active=active)
    np.testing.assert_array_equal(samples.length, np.where(active, everyone.length, 0))
    np.testing.assert_array_equal(samples.tokens, np.where(active[..., None], everyone.tokens, 0))
    assert not np.asarray(samples.passes)[~active].any()
    ids = np.arange(PROMPTS * GROUP).reshape(PROMPTS, GROUP)
    alone = sample(
        params,
        (instruction, Block(prompt.tokens[7:9], prompt.length[7:9])),
        *(Sampling.create(), DRAFTS),
        row_ids=ids[7:9],
    )
    np.testing.assert_array_equal(alone.tokens, everyone.tokens[7:9])


def test_masks_apply_to_drafts_and_forced_runs_take_one_pass(params, blocks):
    vocab, stop = CONFIG.vocab_size, STOPS[0]
    shift = jnp.arange(PROMPTS * GROUP).reshape(PROMPTS, GROUP)

    def allowed(state, remaining):
        """Allows one token alone in states 0 to 9 of every 12, and else some."""
        tokens, state = jnp.arange(vocab), state[..., None]
        forced = tokens == (7 * state + 3) % vocab
        some = (tokens + state) % 7 < 2
        mask = jnp.where(state % 12 < 10, forced, some)
        return jnp.where((jnp.asarray(remaining) == 1)[..., None], tokens == stop, mask)

    constraint = Constraint(shift % 12, allowed, lambda state, tokens: state + 1 + tokens % 2)

    @partial(jax.jit, static_argnums=2)
    def run(params, sampling, drafts):
        return generate(
            *(DECODER, params, blocks, jax.random.key(3), sampling),
            **{"group": GROUP, "max_tokens": RESPONSE, "stop_tokens": (stop,)},
            **{"constraint": constraint, "drafts": drafts},
        )

    for temperature in (0.0, 1.0):
        sampling = Sampling.create(temperature)
        expected, found = (run(params, sampling, drafts) for drafts in (0, DRAFTS))
        check_equal(found, expected)
        assert np.asarray(found.stopped).all()
        assert np.asarray(found.length).sum() > 2 * np.asarray(found.passes).sum()


def plain_copy(history, last):
    """Searches for the longest match as a person would; the latest of equally long ones."""
    best, token = 0, None
    for place in range(1, len(history)):
        size = 0
        while size < min(LOOKED_UP, place) and history[place - 1 - size] == last[-1 - size]:
            size += 1
        if size and size >= best:
            best, token = size, history[place]
    return token


def test_drafts_follow_the_longest_match():
    rng = np.random.default_rng(0)
    history = rng.integers(0, 4, (300, 24)).astype(np.int32)
    known = rng.integers(1, 25, 300).astype(np.int32)
    last = np.asarray(last_tokens(jnp.asarray(history), jnp.asarray(known)))
    found = np.asarray(jax.jit(copied)(history, known, last))
    some = 0
    for row, size, end, token in zip(history, known, last, found, strict=True):
        real = [-1] * LOOKED_UP + row[:size].tolist()
        assert end.tolist() == real[-LOOKED_UP:]
        expected = plain_copy(row[:size].tolist(), end.tolist())
        some += expected is not None
        assert expected is None or token == expected
    assert some > 200


def test_the_history_is_the_chain_without_gaps():
    instruction, prompt, _ = random_chain(np.random.default_rng(2), prompts=5)
    history, known = history_of((instruction, prompt), room=3)
    assert history.shape == (5, instruction.tokens.shape[0] + prompt.tokens.shape[1] + 3)
    for row, size, tokens, length in zip(
        *(np.asarray(history), np.asarray(known), prompt.tokens, prompt.length), strict=True
    ):
        real = [*instruction.tokens[: instruction.length], *tokens[:length]]
        assert size == len(real) and row.tolist() == real + [0] * (len(row) - size)
