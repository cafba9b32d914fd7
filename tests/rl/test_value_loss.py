import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.rl.losses import denominators, value_loss

NEW = jnp.array([[1.2, 0.4, 1.0], [0.2, 0.0, 0.9]])
OLD = jnp.array([[0.5, 0.4, 0.3], [0.2, 0.6, 0.9]])
MASK = jnp.array([[1, 1, 1], [1, 1, 0]])
RETURNS = MASK.astype(jnp.float32)


def _loss(values=NEW, old=OLD, returns=RETURNS, mask=MASK, clip=0.5, counts=None):
    counts = denominators(mask) if counts is None else counts
    return value_loss(
        values, old, returns, mask, clip=clip, aggregation="token-mean", denominators=counts
    )


def test_golden_value_loss():
    terms = _loss()
    np.testing.assert_allclose(terms.loss, 0.208, atol=1e-6)
    np.testing.assert_allclose(terms.metrics["value_clip_fraction"].value(), 0.2, atol=1e-6)
    np.testing.assert_allclose(terms.metrics["value"].value(), 2.8 / 5, atol=1e-6)


def test_without_clipping_it_is_half_the_squared_error():
    terms = _loss(clip=None)
    # (0.04 + 0.36 + 0 + 0.64 + 1) / 2 / 5
    np.testing.assert_allclose(terms.loss, 0.204, atol=1e-6)
    assert terms.metrics["value_clip_fraction"].value() == 0


def test_a_value_beyond_the_clip_is_not_pushed_further():
    # It moved from 0 to 0.8 towards a return of 2: the clipped error, 1.5, is the larger one.
    one = jnp.ones((1, 1))
    slope = jax.grad(lambda value: _loss(value, 0 * one, 2 * one, one).loss)
    assert slope(0.8 * one) == 0
    np.testing.assert_allclose(slope(0.4 * one), -1.6, rtol=1e-6)


def test_padding_does_not_matter_and_parts_add_up():
    spoiled = _loss(*(x.at[1, 2].set(jnp.nan) for x in (NEW, OLD, RETURNS)))
    assert spoiled.loss == _loss().loss
    slope = jax.grad(lambda values: _loss(values, OLD.at[1, 2].set(jnp.inf)).loss)
    assert np.isfinite(slope(NEW.at[1, 2].set(jnp.nan))).all()
    whole = denominators(MASK)
    parts = [_loss(NEW[i], OLD[i], RETURNS[i], MASK[i], counts=whole).loss for i in range(2)]
    np.testing.assert_allclose(sum(parts), 0.208, atol=1e-6)
