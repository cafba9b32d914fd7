"""Teaches a tiny decoder from lessons of several lengths."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from memr1_jax.models.decoder import Decoder, init_params
from memr1_jax.models.decoder_config import PRESETS
from memr1_jax.studies.agent_lessons import Lesson
from memr1_jax.studies.teaching import Batches, right_tokens, row_loss, steady_rate, teach_lessons

SHAPE = dataclasses.replace(PRESETS["tiny"], vocab_size=32, num_layers=1, model_width=32)
DECODER = Decoder(SHAPE, remat="none")


def lessons(count, seed=0):
    """Lessons whose response repeats the prompt's second token, and ends."""
    draw = np.random.default_rng(seed)
    prompts = [[1, *draw.integers(3, 32, draw.integers(1, 24)).tolist(), 2] for _ in range(count)]
    return [Lesson(prompt, [prompt[1], 0]) for prompt in prompts]


@pytest.fixture(scope="module")
def params():
    return jax.jit(init_params, static_argnums=0)(SHAPE, jax.random.key(0))


@pytest.fixture(scope="module")
def taught(params):
    shown = [Lesson([1, token, 2], [token, 0]) for token in range(3, 32)]
    after = teach_lessons(
        DECODER,
        params,
        shown,
        rate=steady_rate(1e-2, 120, warmup=10),
        steps=120,
        tokens=128,
        prompt_weight=0.0,
        seed=0,
    )
    return shown, after


def test_each_lesson_comes_once_in_a_round_with_lessons_of_its_width():
    shown = lessons(40)
    batches = list(itertools.islice(Batches(shown, tokens=64, seed=0), 400))
    assert {tokens.shape[1] for tokens, *_ in batches} == {16, 32}
    assert all(tokens.size <= 64 for tokens, *_ in batches)
    rows = {
        (tuple(tokens[:end]), int(start))
        for batch in batches
        for tokens, end, start in zip(*batch, strict=True)
    }
    assert rows == {((*one.prompt, *one.response), len(one.prompt)) for one in shown}


def test_the_loss_weighs_prompts_less_and_padding_not_at_all(params):
    shown = Lesson([1, 7, 9, 2], [7, 0])
    tokens = np.array([[*shown.prompt, *shown.response]], np.int32)
    length, asked = np.array([6]), np.array([4])
    loss = jax.jit(row_loss, static_argnums=0)
    (both, response), (only, again), (whole, _) = (
        loss(DECODER, weight, params, tokens, length, asked) for weight in (0.5, 0.0, 1.0)
    )
    np.testing.assert_allclose(only, response, rtol=1e-5)
    np.testing.assert_allclose(again, response, rtol=1e-5)
    prompt = (5 * whole - 2 * response) / 3  # mean over the three tokens of the prompt
    np.testing.assert_allclose(both, (2 * response + 1.5 * prompt) / 3.5, rtol=1e-4)
    padded = np.pad(tokens, ((0, 0), (0, 4)), constant_values=5)
    np.testing.assert_allclose(
        loss(DECODER, 0.5, params, padded, length, asked)[0], both, rtol=1e-5
    )


def test_the_rate_climbs_stays_and_falls():
    rate = steady_rate(1.0, 1000, warmup=100)
    assert [float(rate(step)) for step in (0, 50, 100, 400)] == pytest.approx([0, 0.5, 1, 1])
    assert float(rate(700)) == pytest.approx(0.525, abs=0.01)
    assert float(rate(1000)) == pytest.approx(0.05)


def test_lessons_are_learned_and_right_tokens_tell(params, taught):
    shown, after = taught
    before = np.concatenate(right_tokens(DECODER, params, shown)).mean()
    right = right_tokens(DECODER, after, shown)
    assert all(len(found) == 2 for found in right)
    assert np.concatenate(right).mean() > 0.9 > before
