"""Imitation: the gradient by hand, splits of the batch, and which samples are learned from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, random_params

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.rl.imitation import ImitationOptions, imitation_update, kept_samples
from memr1_jax.rl.update import Experience, create_optimizer, create_state

SMALL = dataclasses.replace(CONFIG, vocab_size=48)
DECODER = Decoder(SMALL, remat="none")
PROMPTS, GROUP, PROMPT, RESPONSE = 4, 3, 6, 5
INSTRUCTION = [3, 1, 4]


@pytest.fixture(scope="module")
def params():
    return jax.device_put(random_params(SMALL))


@pytest.fixture(scope="module")
def experience():
    """Draws tokens and rewards of varying lengths; log-probabilities that nobody should read."""
    rng = np.random.default_rng(0)

    def tokens(*shape):
        return jnp.array(rng.integers(0, SMALL.vocab_size, shape), jnp.int32)

    rows = (PROMPTS, GROUP)
    lengths = jnp.array(rng.integers(1, RESPONSE + 1, rows), jnp.int32)
    return Experience(
        prompt=Block(tokens(PROMPTS, PROMPT), jnp.array([6, 4, 5, 1])),
        response=Block(tokens(*rows, RESPONSE), lengths),
        logprobs=jnp.full((*rows, RESPONSE), jnp.nan),
        rewards=jnp.array([[0.2, 0.9, 0.1], [0.5, 0.5, 0.1], [0.0, 0.0, 0.0], [0.0, 0.1, 0.4]]),
        stopped=jnp.ones(rows, bool),
        valid=jnp.ones(PROMPTS, bool),
        shown=jnp.zeros(PROMPTS, jnp.int32),
    )


def _compiled(optimizer=None, complete=lambda params: params, **options):
    algorithm = ImitationOptions(**{"group": GROUP, "logit_chunk": 7} | options)
    instruction = Block(jnp.array(INSTRUCTION), jnp.int32(len(INSTRUCTION)))
    optimizer = optimizer or optax.sgd(1.0)

    @jax.jit
    def step(params, experience):
        state = create_state(params, optimizer, 0)
        after, metrics = imitation_update(
            algorithm, DECODER, optimizer, state, None, instruction, experience, complete=complete
        )
        return after.params, metrics

    return step


@pytest.fixture(scope="module")
def cloning():
    return _compiled()


@pytest.fixture(scope="module")
def best_of_n():
    return _compiled(imitated="best")


def test_likelihoods_are_at_temperature_one_unless_asked(params, experience, cloning):
    plain, metrics = cloning(params, experience)
    sampled_cooler, _ = _compiled(temperature=0.5)(params, experience)
    for left, right in zip(jax.tree.leaves(plain), jax.tree.leaves(sampled_cooler), strict=True):
        np.testing.assert_array_equal(left, right)
    _, cooler = _compiled(likelihood_temperature=0.5)(params, experience)
    assert float(cooler["nll"].value()) > 1.1 * float(metrics["nll"].value())


def _moves(before, after):
    return jax.tree.map(lambda old, new: np.asarray(new - old, np.float64), before, after)


def _assert_close(first, second, tolerance):
    for left, right in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        left, right = np.asarray(left), np.asarray(right)
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance * np.abs(left).max())


def _by_hand(params, experience, kept):
    """Returns the mean negative log-likelihood of `kept` samples' tokens, and its gradient."""
    rows, places = [], []
    for b, g in zip(*np.nonzero(kept), strict=True):
        prompt = experience.prompt.tokens[b, : experience.prompt.length[b]].tolist()
        response = experience.response.tokens[b, g, : experience.response.length[b, g]].tolist()
        start = len(INSTRUCTION) + len(prompt)
        rows.append(np.array(INSTRUCTION + prompt + response))
        places.append((start, start + len(response)))
    length = max(map(len, rows))
    tokens = jnp.array([np.pad(row, (0, length - len(row))) for row in rows])
    weight = np.zeros(tokens.shape)
    for row, (start, end) in enumerate(places):
        weight[row, start:end] = 1

    def nll(params):
        block = Block(tokens, jnp.full(len(rows), length))
        (hidden,) = DECODER.apply({"params": params}, (block,))
        logits = DECODER.apply({"params": params}, hidden[:, :-1], method=Decoder.logits)
        logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:, None], axis=-1)
        return -jnp.sum(logprobs[..., 0] * weight[:, 1:]) / weight.sum()

    return jax.jit(jax.value_and_grad(nll))(params)


def test_the_gradient_is_that_of_the_mean_log_likelihood(params, experience, cloning):
    value, gradient = _by_hand(params, experience, np.ones((PROMPTS, GROUP), bool))
    after, metrics = cloning(params, experience)
    _assert_close(gradient, _moves(after, params), 2e-3)
    for name in ("loss", "nll"):
        np.testing.assert_allclose(metrics[name].value(), value, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["gradient_norm"].value(), optax.tree.norm(gradient), rtol=1e-4
    )
    assert not {"kept", "reward"} & set(metrics)  # nothing is judged


def test_best_of_n_learns_from_exactly_the_kept_samples(params, experience, best_of_n):
    kept = np.zeros((PROMPTS, GROUP), bool)
    kept[[0, 1, 3], [1, 0, 2]] = True  # in row 1 the first of two, in row 2 none
    value, gradient = _by_hand(params, experience, kept)
    after, metrics = best_of_n(params, experience)
    _assert_close(gradient, _moves(after, params), 2e-3)
    np.testing.assert_allclose(metrics["nll"].value(), value, rtol=1e-5)
    np.testing.assert_allclose(metrics["kept"].value(), 3 / 12, rtol=1e-6)
    np.testing.assert_allclose(metrics["reward"].value(), experience.rewards.mean(), rtol=1e-6)


def test_which_samples_are_kept(experience):
    def kept(valid=(True,) * 4, **options):
        rows = experience.replace(valid=jnp.array(valid))
        return np.asarray(kept_samples(ImitationOptions(**options), rows)).astype(int).tolist()

    one, two, three, none = [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]
    assert kept(imitated="best") == [two, one, none, three]
    assert kept(imitated="best", min_reward=-1.0) == [two, one, one, three]
    assert kept(imitated="best", min_reward=0.4) == [two, one, none, none]  # above, not at
    assert kept(imitated="best", valid=(False, True, True, False)) == [none, one, none, none]
    assert kept(imitated="all", valid=(True, True, True, False)) == [[1, 1, 1]] * 3 + [none]


def test_a_batch_of_which_nothing_is_kept_leaves_the_weights(params, experience, best_of_n):
    poor = experience.replace(rewards=jnp.zeros((PROMPTS, GROUP)))
    after, metrics = best_of_n(params, poor)
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old, new)
    assert float(metrics["kept"].value()) == float(metrics["gradient_norm"].value()) == 0
    assert float(metrics["loss"].value()) == 0

    decaying = _compiled(create_optimizer(0.1, weight_decay=0.5), imitated="best")
    after, _ = decaying(params, poor)
    _assert_close(jax.tree.map(lambda x: x * (1 - 0.1 * 0.5), params), after, 1e-6)


def test_micro_batches_change_nothing(params, experience, best_of_n):
    whole, metrics = best_of_n(params, experience)
    split, split_metrics = _compiled(imitated="best", micro_batches=2)(params, experience)
    _assert_close(_moves(params, whole), _moves(params, split), 1e-4)
    assert metrics.keys() == split_metrics.keys()
    for name in metrics:
        found, expected = split_metrics[name].value(), metrics[name].value()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_mini_batches_are_steps_on_parts_of_the_batch(params, experience, cloning):
    _, once = cloning(params, experience)
    still = _compiled(optax.sgd(0.0), mini_batches=2, micro_batches=2, epochs=3)
    _, metrics = still(params, experience)
    assert float(metrics["loss"].weight) == 6
    for name in ("nll", "entropy"):  # weighted by tokens, so the parts make up the whole
        np.testing.assert_allclose(metrics[name].value(), once[name].value(), rtol=1e-5)


def test_padding_rows_do_not_count(params, experience, best_of_n):
    kept = jnp.array([True, True, False, False])
    after, metrics = best_of_n(params, experience.replace(valid=kept))
    # Rows that earn nothing are not learned from either.
    poor = experience.replace(rewards=experience.rewards * kept[:, None])
    expected, expected_metrics = best_of_n(params, poor)
    _assert_close(_moves(params, expected), _moves(params, after), 1e-6)
    np.testing.assert_allclose(metrics["nll"].value(), expected_metrics["nll"].value(), rtol=1e-6)
    np.testing.assert_allclose(metrics["kept"].value(), 2 / 6, rtol=1e-6)
    np.testing.assert_allclose(metrics["reward"].value(), experience.rewards[:2].mean(), rtol=1e-6)


def test_only_what_is_trained_has_a_gradient(params, experience, cloning):
    def scaled(trained):
        return jax.tree.map(lambda x: x * trained["scale"], params)

    trained = {"scale": jnp.float32(1)}
    after, metrics = _compiled(complete=scaled)(trained, experience)
    full = _moves(cloning(params, experience)[0], params)
    pairs = zip(jax.tree.leaves(full), jax.tree.leaves(params), strict=True)
    slope = sum(np.sum(gradient * np.asarray(leaf)) for gradient, leaf in pairs)
    np.testing.assert_allclose(1 - after["scale"], slope, rtol=1e-3)
    np.testing.assert_allclose(metrics["gradient_norm"].value(), abs(slope), rtol=1e-3)


def test_options_that_cannot_work_are_refused(params, experience):
    with pytest.raises(ValueError, match="'worst'"):
        ImitationOptions(imitated="worst")
    with pytest.raises(ValueError, match="4 prompts do not divide into 3"):
        _compiled(micro_batches=3)(params, experience)
