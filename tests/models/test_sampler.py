"""Sampling against the trainer's log-probabilities, NumPy references and exact distributions."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from small_decoder import CONFIG, CONFIGS, random_chain, random_params

from memr1_jax.models import decoding
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.logprobs import response_statistics
from memr1_jax.models.sampler import Constraint, Sampling, generate, sample_tokens

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 100
BATCH = 50  # cases of one compiled call
PROMPTS, GROUP, RESPONSE = 3, 4, 12
STOPS = (0, 5, 11, 17)  # 0 is what padding holds
DECODER = Decoder(CONFIG)
LAST = 1 - 2**-24  # the largest uniform


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def blocks():
    return random_chain(np.random.default_rng(0), prompts=PROMPTS)[:2]


@partial(jax.jit, static_argnames="stop_tokens")
def sample(params, blocks, sampling, stop_tokens=(), **options):
    options = {"group": GROUP, "max_tokens": RESPONSE, "stop_tokens": stop_tokens} | options
    return generate(DECODER, params, blocks, jax.random.key(3), sampling, **options)


@jax.jit
def trainer_logprobs(params, blocks, temperature):
    return response_statistics(DECODER, params, blocks, temperature, chunk=16).logprobs


def real(samples):
    return np.arange(RESPONSE) < np.asarray(samples.length)[..., None]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_logprobs_equal_trainer(params, blocks, temperature):
    samples = sample(params, blocks, Sampling.create(temperature), STOPS)
    expected = trainer_logprobs(params, (*blocks, samples.block), temperature)
    expected = np.where(real(samples), expected, 0)
    np.testing.assert_allclose(samples.logprobs, expected, atol=1e-4)
    assert len(np.unique(samples.tokens)) > 10


def test_constrained_logprobs_equal_trainer(params, blocks):
    stop = STOPS[1]

    def mask(state, remaining):
        tokens = jnp.arange(CONFIG.vocab_size)
        some = (tokens + state[..., None]) % 7 < 2
        return jnp.where((remaining == 1)[..., None], tokens == stop, some)

    def following(state, tokens):
        return (3 * state + tokens) % 101

    @jax.jit
    def run(params, state, sampling):
        def allowed(state, remaining):
            return mask(state, jnp.asarray(remaining))

        constraint = Constraint(state, allowed, following)
        options = {"group": GROUP, "max_tokens": RESPONSE, "stop_tokens": (stop,)}
        key = jax.random.key(3)
        samples = generate(DECODER, params, blocks, key, sampling, constraint=constraint, **options)
        _, states = jax.lax.scan(
            lambda state, tokens: (following(state, tokens), state),
            state,
            jnp.moveaxis(samples.tokens, -1, 0),
        )
        states = jnp.moveaxis(states, 0, -1)
        remaining = jnp.broadcast_to(RESPONSE - jnp.arange(RESPONSE), states.shape)
        found = response_statistics(
            DECODER,
            params,
            (*blocks, samples.block),
            sampling.temperature,
            allowed=mask,
            allowed_inputs=(states, remaining),
        )
        return samples, found.logprobs, mask(states, remaining)

    state = jnp.arange(PROMPTS * GROUP).reshape(PROMPTS, GROUP)
    for temperature in (0.7, 1.3):
        samples, logprobs, masks = run(params, state, Sampling.create(temperature))
        expected = np.where(real(samples), logprobs, 0)
        np.testing.assert_allclose(samples.logprobs, expected, atol=1e-4)
        chosen = np.take_along_axis(np.asarray(masks), np.asarray(samples.tokens)[..., None], -1)
        assert chosen[real(samples)].all()
        assert np.asarray(samples.stopped).all()  # the last token must be the stop


def test_greedy_takes_the_likeliest(params, blocks):
    samples = sample(params, blocks, Sampling.create(0.0))

    @jax.jit
    def all_logits(params, blocks):
        def run(module, blocks):
            _, prompt, response = module(blocks)
            last = jnp.take_along_axis(prompt, blocks[1].length[:, None, None] - 1, 1)
            last = jnp.broadcast_to(last[:, None], (*response.shape[:-2], 1, prompt.shape[-1]))
            return module.logits(jnp.concatenate([last, response[..., :-1, :]], -2))

        return DECODER.apply({"params": params}, blocks, method=run)

    logits = all_logits(params, (*blocks, samples.block))
    np.testing.assert_array_equal(samples.tokens, logits.argmax(-1))
    expected = jax.nn.log_softmax(logits).max(-1)
    np.testing.assert_allclose(samples.logprobs, expected, atol=1e-4)
    assert (samples.tokens == samples.tokens[:, :1]).all()  # all of a group are equal


def test_stop_tokens_cut_the_unstopped_response(params, blocks):
    endless = sample(params, blocks, Sampling.create())
    samples = sample(params, blocks, Sampling.create(), STOPS)
    assert (endless.length == RESPONSE).all() and not endless.stopped.any()
    is_stop = np.isin(endless.tokens, STOPS)
    expected = np.where(is_stop.any(-1), is_stop.argmax(-1) + 1, RESPONSE)
    assert len(np.unique(expected)) > 3  # some rows wait for others
    np.testing.assert_array_equal(samples.length, expected)
    np.testing.assert_array_equal(samples.stopped, is_stop.any(-1))
    np.testing.assert_array_equal(samples.tokens, np.where(real(samples), endless.tokens, 0))
    np.testing.assert_allclose(
        samples.logprobs, np.where(real(samples), endless.logprobs, 0), atol=1e-6
    )


def test_all_rows_stop_at_once(params, blocks):
    samples = sample(params, blocks, Sampling.create(), tuple(range(CONFIG.vocab_size)))
    assert (samples.length == 1).all() and samples.stopped.all()
    assert (samples.logprobs[..., 0] < 0).all()
    assert not samples.tokens[..., 1:].any() and not samples.logprobs[..., 1:].any()


def test_inactive_rows_are_empty(params, blocks):
    active = np.random.default_rng(1).random((PROMPTS, GROUP)) < 0.5
    everyone = sample(params, blocks, Sampling.create(), STOPS)
    samples = sample(params, blocks, Sampling.create(), STOPS, active=active)
    np.testing.assert_array_equal(samples.length, np.where(active, everyone.length, 0))
    np.testing.assert_array_equal(samples.tokens, np.where(active[..., None], everyone.tokens, 0))
    nobody = sample(params, blocks, Sampling.create(), STOPS, active=np.zeros_like(active))
    assert not nobody.length.any() and not nobody.tokens.any() and not nobody.logprobs.any()


def test_samples_do_not_depend_on_the_batch(params, blocks):
    instruction, prompt = blocks
    together = sample(params, blocks, Sampling.create(), STOPS)
    ids = np.arange(PROMPTS * GROUP).reshape(PROMPTS, GROUP)
    alone = sample(
        params,
        (instruction, Block(prompt.tokens[2:], prompt.length[2:])),
        Sampling.create(),
        STOPS,
        row_ids=ids[2:],
    )
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[2])
    np.testing.assert_allclose(alone.logprobs[0], together.logprobs[2], atol=1e-5)
    assert len(np.unique(together.tokens[2], axis=0)) == GROUP  # yet rows differ from each other


def test_stored_instruction_gives_the_same_samples(params, blocks):
    expected = sample(params, blocks, Sampling.create(), STOPS)
    prefill = partial(DECODER.apply, {"params": params}, method=Decoder.prefill)
    _, past = prefill(blocks[:1])
    samples = sample(params, blocks[1:], Sampling.create(), STOPS, past=past)
    np.testing.assert_array_equal(samples.tokens, expected.tokens)
    np.testing.assert_allclose(samples.logprobs, expected.logprobs, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_that_are_taken_apart_give_the_same_samples(name, blocks, monkeypatch):
    decoder, params = Decoder(CONFIGS[name]), random_params(CONFIGS[name])
    found = []
    for fewest in (0, 2**40):  # bytes: always, and never
        monkeypatch.setattr(decoding, "_FEWEST_COPIED", fewest)
        options = {"group": GROUP, "max_tokens": RESPONSE, "stop_tokens": STOPS}
        draw = partial(generate, decoder, sampling=Sampling.create(), **options)
        found.append(jax.jit(draw)(params, blocks, jax.random.key(3)))
    apart, stacked = found
    np.testing.assert_array_equal(apart.tokens, stacked.tokens)
    np.testing.assert_array_equal(apart.length, stacked.length)
    np.testing.assert_allclose(apart.logprobs, stacked.logprobs, atol=1e-5)


def test_other_sampling_parameters_do_not_recompile(params, blocks):
    size = None
    results = []
    for temperature in [1.0, 0.0, 0.5, 1.3]:
        results.append(sample(params, blocks, Sampling.create(temperature), STOPS).tokens)
        size = size or sample._cache_size()
    assert sample._cache_size() == size
    assert len({np.asarray(tokens).tobytes() for tokens in results}) == len(results)


draw = jax.jit(sample_tokens)


def test_counts_over_a_grid_of_uniforms_are_exact():
    vocab, points = 512, 2**14
    logits = np.random.default_rng(0).normal(0, 2, vocab).astype(np.float32)
    logits[[0, 100, 255, 256, 511]] = -np.inf
    uniform = (np.arange(points, dtype=np.float32) + 0.5) / points
    tokens, logprobs = draw(
        jnp.broadcast_to(logits, (points, vocab)), uniform, Sampling.create(0.8)
    )
    weights = np.exp(logits.astype(np.float64) / 0.8)
    probability = weights / weights.sum()
    counts = np.bincount(tokens, minlength=vocab)
    # Each token owns one interval of [0, 1): its count is off by less than one, and rounding.
    assert np.abs(counts - points * probability).max() < 1.1
    np.testing.assert_allclose(logprobs, np.log(probability[np.asarray(tokens)]), atol=1e-5)


@pytest.mark.parametrize("vocab", [512, 49_152])
def test_random_draws_follow_the_distribution(vocab):
    rows, rounds = 64, 300
    logits = np.random.default_rng(1).normal(0, 1.5, vocab).astype(np.float32)

    @jax.jit
    def run(key, logits):
        def one(key):
            uniform = jax.random.uniform(key, (rows,))
            return sample_tokens(
                jnp.broadcast_to(logits, (rows, vocab)), uniform, Sampling.create()
            )[0]

        return jax.lax.map(one, jax.random.split(key, rounds))

    tokens = np.asarray(run(jax.random.key(0), logits)).reshape(-1)
    probability = np.exp(logits.astype(np.float64))
    probability /= probability.sum()
    # Neighbours tell about the blocks of the CDF, remainders about places inside a block.
    index = np.arange(vocab)
    for bins in (index * 64 // vocab, index % 64):
        observed = np.bincount(bins[tokens], minlength=64)
        expected = np.bincount(bins, weights=probability, minlength=64) * len(tokens)
        assert chisquare(observed, expected).pvalue > 1e-3


@jax.jit
def draw_over_grid(logits, sampling):
    points = 1024
    uniform = (jnp.arange(points) + 0.5) / points

    def one(logits, sampling):
        return sample_tokens(
            jnp.broadcast_to(logits, (points, logits.shape[-1])), uniform, sampling
        )

    return jax.vmap(one)(logits, sampling)


@settings(max_examples=CASES // BATCH, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_draws_at_any_temperature_equal_numpy(seed):
    rng = np.random.default_rng(seed)
    vocab = 24
    logits = rng.normal(0, 0.7, (BATCH, vocab)).clip(-1.2, 1.2).astype(np.float32)
    tied = rng.random(BATCH) < 0.5
    logits[tied] = np.round(logits[tied])
    temperature = rng.choice([0.7, 1.0, 1.3], BATCH).astype(np.float32)
    found = draw_over_grid(jnp.asarray(logits), Sampling(jnp.asarray(temperature)))
    for row, (tokens, logprobs) in enumerate(zip(*map(np.asarray, found), strict=True)):
        case = logits[row], temperature[row]
        assert set(tokens) == set(range(vocab)), case
        weight = np.exp(logits[row].astype(np.float64) / temperature[row])
        expected = np.log(weight[tokens] / weight.sum())
        np.testing.assert_allclose(logprobs, expected, atol=1e-5)


def test_temperature_zero_takes_the_first_of_the_largest():
    logits = jnp.array([[0.0, 3.0, 3.0, 1.0], [2.0, -1.0, 0.0, 1.0]])
    tokens, logprobs = draw(logits, jnp.array([0.99, 0.99]), Sampling.create(0.0))
    np.testing.assert_array_equal(tokens, [1, 0])
    expected = jax.nn.log_softmax(logits)[jnp.arange(2), tokens]
    np.testing.assert_allclose(logprobs, expected, atol=1e-6)


@pytest.mark.parametrize("vocab", [300, 512, 49_152])
def test_only_allowed_tokens_at_any_uniform(vocab):
    rng = np.random.default_rng(2)
    uniform = np.array([0.0, 1e-30, 2**-24, 0.25, 0.5, 0.75, 1 - 2**-23, LAST], np.float32)
    logits = rng.normal(0, 3, (len(uniform), vocab)).astype(np.float32)
    mask = rng.random((len(uniform), vocab)) < 0.02
    mask[:, [0, 255, 256, vocab - 1]] = False  # ends of the vocabulary and of a block
    for values, allowed in [(logits, mask), (np.where(mask, logits, -np.inf), None)]:
        tokens, logprobs = map(np.asarray, draw(values, uniform, Sampling.create(), allowed))
        rows = np.arange(len(uniform))
        assert mask[rows, tokens].all()
        expected = jax.nn.log_softmax(jnp.where(mask, logits, -jnp.inf))[rows, tokens]
        np.testing.assert_allclose(logprobs, expected, atol=1e-5)
        assert tokens[0] == tokens[1] == 0 or tokens[0] == mask[0].argmax()


@pytest.mark.parametrize("value", [0.0, 0.3, LAST])
@pytest.mark.parametrize("token", [0, 255, 256, 299])
def test_one_token_distributions(value, token):
    mask = np.arange(300)[None] == token
    logits = np.random.default_rng(3).normal(0, 5, (1, 300)).astype(np.float32)
    for sampling in (Sampling.create(), Sampling.create(0.0)):
        found, logprob = draw(logits, np.full(1, value, np.float32), sampling, mask)
        assert (int(found[0]), float(logprob[0])) == (token, 0.0)
    # A logit far above all others leaves their weights at zero without any mask.
    found, logprob = draw(np.where(mask, 200.0, logits), np.full(1, value), Sampling.create())
    assert (int(found[0]), float(logprob[0])) == (token, 0.0)
