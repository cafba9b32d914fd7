import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.rl import losses
from memr1_jax.rl.means import Mean, masked_mean

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200

NEW = jnp.array([[-0.9, -0.5, -1.5, -1.0], [-0.9, -0.5, 0.5, -1.0]])
OLD = jnp.full((2, 4), -1.0)
ADVANTAGES = jnp.array([[1.0], [-1.0]])
MASK = jnp.array([[1, 1, 1, 0], [1, 1, 1, 1]])


def _golden_loss(aggregation, new=NEW, old=OLD, mask=MASK, dual_clip=3.0):
    return losses.policy_loss(
        new,
        old,
        ADVANTAGES,
        mask,
        clip_low=0.2,
        clip_high=0.2,
        dual_clip=dual_clip,
        aggregation=aggregation,
        denominators=losses.denominators(mask),
    )


@pytest.mark.parametrize(
    "aggregation, expected",
    [
        ("token-mean", 0.548884),
        ("token-sum", 3.842191),
        ("seq-mean-token-sum", 1.921095),
        ("seq-mean-token-sum-norm", 0.480274),
        ("seq-mean-token-mean", 0.358953),
    ],
)
def test_golden_policy_loss(aggregation, expected):
    terms = _golden_loss(aggregation)
    np.testing.assert_allclose(terms.loss, expected, atol=1e-5)
    np.testing.assert_allclose(terms.metrics["clip_fraction"].value(), 0.142857, atol=1e-5)
    np.testing.assert_allclose(terms.metrics["clip_fraction_lower"].value(), 0.142857, atol=1e-5)
    np.testing.assert_allclose(terms.metrics["ppo_kl"].value(), -0.314286, atol=1e-5)


def test_golden_policy_loss_without_dual_clip():
    terms = _golden_loss("token-mean", dual_clip=None)
    np.testing.assert_allclose(terms.loss, 0.760554, atol=1e-5)
    assert terms.metrics["clip_fraction_lower"].value() == 0.0


def test_scale_replaces_the_padded_length():
    counts = losses.denominators(MASK, scale=10)
    result = losses.aggregate(jnp.ones((2, 4)), MASK, "seq-mean-token-sum-norm", counts)
    np.testing.assert_allclose(result, 7 / 2 / 10, rtol=1e-6)


def test_clip_range_may_be_asymmetric():
    new = OLD.at[0].set(OLD[0] + jnp.log(1.25)).at[1].set(OLD[1] + jnp.log(0.75))
    terms = losses.policy_loss(
        new,
        OLD,
        ADVANTAGES,
        jnp.ones((2, 4)),
        clip_low=0.2,
        clip_high=0.28,
        aggregation="token-sum",
        denominators=losses.denominators(MASK),
    )
    # Row 1 keeps its ratio of 1.25 (below 1.28); row 2 loses at 0.8, not 0.75.
    np.testing.assert_allclose(terms.loss, 4 * (-1.25 + 0.8), rtol=1e-5)
    np.testing.assert_allclose(terms.metrics["clip_fraction"].value(), 0.5)


def test_on_policy_gradient_is_the_policy_gradient():
    gradient = jax.grad(lambda new: _golden_loss("token-sum", new=new).loss)(OLD)
    np.testing.assert_allclose(gradient, -ADVANTAGES * MASK, atol=1e-6)


def test_clipped_tokens_have_no_gradient():
    gradient = jax.grad(lambda new: _golden_loss("token-sum", new=new).loss)(NEW)
    assert gradient[0, 1] == 0.0  # ratio 1.65 with a positive advantage
    assert gradient[1, 2] == 0.0  # ratio 4.48 with a negative advantage: dual clip
    assert gradient[0, 2] != 0.0  # ratio 0.61 with a positive advantage is not clipped


@pytest.mark.parametrize("padding", [-jnp.inf, jnp.nan])
def test_padding_reaches_neither_loss_nor_gradient(padding):
    def loss(new, old):
        return _golden_loss("seq-mean-token-mean", new=new, old=old).loss

    new, old = NEW.at[0, 3].set(padding), OLD.at[0, 3].set(padding)
    np.testing.assert_allclose(loss(new, old), 0.358953, atol=1e-5)
    np.testing.assert_array_equal(jax.grad(loss)(new, old), jax.grad(loss)(NEW, OLD))


def test_extreme_ratios_stay_finite():
    new, old = NEW.at[1].set(0.0), OLD.at[1].set(-500.0)
    terms, gradient = jax.value_and_grad(
        lambda new: _golden_loss("token-mean", new=new, old=old, dual_clip=None).loss
    )(new)
    assert np.isfinite(terms) and np.isfinite(gradient).all()


@pytest.mark.parametrize("aggregation", losses.AGGREGATIONS)
def test_a_batch_without_tokens_has_loss_and_gradient_zero(aggregation):
    empty = jnp.zeros((2, 4))
    value, gradient = jax.value_and_grad(
        lambda new: _golden_loss(aggregation, new=new, mask=empty).loss
    )(NEW)
    assert value == 0.0 and not np.asarray(gradient).any()


def test_refused_options_are_named():
    with pytest.raises(ValueError, match="'mean'"):
        _golden_loss("mean")
    with pytest.raises(ValueError, match="larger than 1"):
        _golden_loss("token-mean", dual_clip=1.0)


def test_entropy_bonus_and_kl_penalty():
    counts = losses.denominators(MASK)
    options = {"aggregation": "token-mean", "denominators": counts}
    entropy = jnp.array([[1.0, 2.0, 3.0, 9.0], [1.0, 1.0, 1.0, 5.0]])
    bonus = losses.entropy_bonus(entropy, MASK, coefficient=0.5, **options)
    np.testing.assert_allclose(bonus.loss, -0.5 * 14 / 7, rtol=1e-6)
    np.testing.assert_allclose(bonus.metrics["entropy"].value(), 2.0, rtol=1e-6)
    penalty = losses.kl_loss(NEW, OLD, MASK, kind="k2", coefficient=0.1, **options)
    squares = 0.5 * np.square([0.1, 0.5, -0.5, 0.1, 0.5, 1.5, 0.0])
    np.testing.assert_allclose(penalty.loss, 0.1 * squares.mean(), rtol=1e-5)
    np.testing.assert_allclose(penalty.metrics["kl"].value(), squares.mean(), rtol=1e-5)
    both = bonus.add(penalty)
    np.testing.assert_allclose(both.loss, bonus.loss + penalty.loss)
    assert set(both.metrics) == {"entropy", "kl"}
    assert both.add(bonus).metrics["entropy"].weight == 14


@pytest.mark.parametrize("aggregation", losses.AGGREGATIONS)
def test_micro_batches_add_up_to_the_whole(aggregation):
    """Adds loss, gradient and metrics of a small softmax policy on sequences of 0 to 8 tokens."""
    random = np.random.default_rng(1)
    batch, group, length, vocabulary, width = 6, 3, 8, 7, 5
    features = jnp.asarray(random.normal(size=(batch, group, length, width)), jnp.float32)
    tokens = jnp.asarray(random.integers(0, vocabulary, (batch, group, length)))
    lengths = random.integers(0, length + 1, (batch, group, 1))
    mask = jnp.asarray(np.arange(length) < lengths)
    advantages = jnp.asarray(random.normal(size=(batch, group, 1)), jnp.float32)
    weights = jnp.asarray(random.normal(size=(width, vocabulary)), jnp.float32)

    def token_logp(weights, features, tokens):
        table = jax.nn.log_softmax(features @ weights)
        logp = jnp.take_along_axis(table, tokens[..., None], -1)[..., 0]
        return logp, -jnp.sum(jnp.exp(table) * table, -1)

    old = token_logp(weights * 0.8, features, tokens)[0]
    reference = token_logp(weights * 0.5, features, tokens)[0]
    options = {"aggregation": aggregation, "denominators": losses.denominators(mask)}

    def loss(weights, part):
        features, tokens, old, reference, advantages, mask = part
        logp, entropy = token_logp(weights, features, tokens)
        terms = losses.policy_loss(
            logp, old, advantages, mask, clip_low=0.2, clip_high=0.2, dual_clip=3.0, **options
        )
        terms = terms.add(
            losses.kl_loss(logp, reference, mask, kind="k3", coefficient=0.1, **options)
        )
        terms = terms.add(losses.entropy_bonus(entropy, mask, coefficient=0.01, **options))
        return terms.loss, terms

    whole = (features, tokens, old, reference, advantages, mask)
    gradient, terms = jax.grad(loss, has_aux=True)(weights, whole)

    def accumulate(carry, part):
        return jax.tree.map(jnp.add, carry, jax.grad(loss, has_aux=True)(weights, part)), None

    parts = jax.tree.map(lambda x: x.reshape(6, -1, *x.shape[1:]), whole)
    zeros = jax.tree.map(jnp.zeros_like, (gradient, terms))
    (split_gradient, split_terms), _ = jax.lax.scan(accumulate, zeros, parts)

    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose(split_terms.loss, terms.loss, rtol=1e-5)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(split_gradient / scale, gradient / scale, atol=1e-5)
    assert set(terms.metrics) == {"clip_fraction", "clip_fraction_lower", "ppo_kl", "kl", "entropy"}
    for name, mean in terms.metrics.items():
        assert mean.weight == np.asarray(mask).sum()
        np.testing.assert_allclose(split_terms.metrics[name].value(), mean.value(), rtol=1e-5)


def _plain_policy_loss(new, old, advantages, mask, aggregation):
    """Computes it token by token, in float64."""
    length = len(mask[0])
    rows = []
    for row in range(len(mask)):
        tokens = []
        for column in range(length):
            if mask[row][column]:
                a = float(advantages[row][0])
                ratio = np.exp(float(new[row][column]) - float(old[row][column]))
                loss = max(-a * ratio, -a * min(max(ratio, 0.8), 1.2))
                tokens.append(min(loss, -3.0 * a) if a < 0 else loss)
        rows.append(tokens)
    filled = [tokens for tokens in rows if tokens]
    total, count = sum(map(sum, filled)), sum(map(len, filled))
    return {
        "token-mean": total / max(count, 1),
        "token-sum": total,
        "seq-mean-token-sum": total / max(len(filled), 1),
        "seq-mean-token-sum-norm": total / max(len(filled), 1) / length,
        "seq-mean-token-mean": sum(sum(t) / len(t) for t in filled) / max(len(filled), 1),
    }[aggregation]


@pytest.mark.parametrize("aggregation", losses.AGGREGATIONS)
def test_equals_plain_python_on_random_batches(aggregation):
    random = np.random.default_rng(2)
    shape = (CASES, 3, 4)
    new, old = (random.normal(-1, 0.7, shape).astype(np.float32) for _ in range(2))
    advantages = random.normal(size=(CASES, 3, 1)).astype(np.float32)
    mask = random.random(shape) < 0.6  # holes and empty sequences included

    @jax.jit
    @jax.vmap
    def loss(new, old, advantages, mask):
        return losses.policy_loss(
            new,
            old,
            advantages,
            mask,
            clip_low=0.2,
            clip_high=0.2,
            dual_clip=3.0,
            aggregation=aggregation,
            denominators=losses.denominators(mask),
        ).loss

    result = loss(new, old, advantages, mask)
    expected = [
        _plain_policy_loss(*case, aggregation)
        for case in zip(new, old, advantages, mask, strict=True)
    ]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_mean_ignores_what_is_masked_and_adds_exactly():
    values = jnp.array([1.0, jnp.nan, 4.0])
    mean = masked_mean(values, jnp.array([1, 0, 1]))
    assert (mean.sum, mean.weight, mean.value()) == (5.0, 2.0, 2.5)
    assert mean.add(Mean(jnp.float32(1.0), jnp.float32(2.0))).value() == 1.5
    assert masked_mean(values, jnp.zeros(3)).value() == 0.0
    assert not np.asarray(jax.grad(lambda x: masked_mean(x, jnp.ones(3)).value())(values)).any()
