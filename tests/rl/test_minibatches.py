import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memr1_jax.rl.losses import LossTerms
from memr1_jax.rl.means import once
from memr1_jax.rl.minibatches import accumulate_gradients, map_parts, run_mini_batches

ROWS = jnp.arange(12)


def _visited(key, epochs, mini_batches):
    """Rows in the order of their visits, and the sum and count of a metric."""

    def step(state, part):
        count, seen = state
        return (count + 1, seen.at[count].set(part["row"])), {"row": once(part["row"].sum())}

    seen = jnp.zeros((epochs * mini_batches, 12 // mini_batches), int)
    (count, seen), metrics = run_mini_batches(
        step, (0, seen), {"row": ROWS}, key, epochs=epochs, mini_batches=mini_batches
    )
    assert count == epochs * mini_batches
    return np.asarray(seen).reshape(epochs, 12), metrics["row"]


def test_every_epoch_visits_every_prompt_once_in_its_own_order():
    seen, metric = _visited(jax.random.key(0), 3, 4)
    np.testing.assert_array_equal(np.sort(seen), np.broadcast_to(ROWS, (3, 12)))
    assert len({tuple(epoch) for epoch in seen}) == 3
    assert metric.sum == 3 * 66 and metric.weight == 12
    np.testing.assert_array_equal(seen, _visited(jax.random.key(0), 3, 4)[0])
    assert not np.array_equal(seen, _visited(jax.random.key(1), 3, 4)[0])


def test_a_single_step_keeps_the_order():
    np.testing.assert_array_equal(_visited(jax.random.key(0), 1, 1)[0], ROWS[None])


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_add_up(parts):
    def loss(weight, rows):
        return LossTerms(jnp.square(weight * rows).sum(), {"rows": once(rows.sum())})

    gradient, terms = accumulate_gradients(loss, jnp.float32(2), ROWS, parts)
    squares = float(jnp.square(ROWS).sum())
    assert gradient == 4 * squares and terms.loss == 4 * squares
    assert terms.metrics["rows"].sum == 66 and terms.metrics["rows"].weight == parts
    np.testing.assert_array_equal(map_parts(lambda x: 2 * x, ROWS, parts), 2 * ROWS)
