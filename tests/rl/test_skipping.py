"""A step whose gradient is not finite changes nothing, whatever learns from it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, random_params

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.rl.imitation import ImitationOptions, imitation_update
from memr1_jax.rl.losses import LossTerms
from memr1_jax.rl.means import Mean
from memr1_jax.rl.minibatches import optimiser_step
from memr1_jax.rl.ppo import Optimizers, PPOOptions, create_ppo_state, ppo_update
from memr1_jax.rl.update import Experience, GRPOOptions, create_optimizer, create_state, update

SMALL = dataclasses.replace(CONFIG, vocab_size=48)
DECODER = Decoder(SMALL, remat="none")
OPTIMIZER = create_optimizer(1e-3, warmup_steps=2)
WAYS = {
    "grpo": (update, GRPOOptions(group=2, kl_weight=0.0, mini_batches=2)),
    "ppo": (ppo_update, PPOOptions(group=2, kl_weight=0.0)),
    "sft": (imitation_update, ImitationOptions()),
    "best_of_n": (imitation_update, ImitationOptions(group=2, imitated="best")),
}


@pytest.mark.parametrize(
    "name", ["grpo", "ppo", "sft", pytest.param("best_of_n", marks=pytest.mark.slow)]
)
def test_a_gradient_that_is_not_finite_changes_nothing(name):
    learn, algorithm = WAYS[name]
    params = jax.device_put(random_params(SMALL))
    rng = np.random.default_rng(0)
    rows = (2, algorithm.group)
    experience = Experience(
        prompt=Block(jnp.full((2, 3), 7), jnp.full(2, 3)),
        response=Block(jnp.array(rng.integers(0, 48, (*rows, 5)), jnp.int32), jnp.full(rows, 5)),
        logprobs=jnp.full((*rows, 5), -3.0),
        rewards=jnp.array(rng.random(rows), jnp.float32),
        stopped=jnp.ones(rows, bool),
        valid=jnp.ones(2, bool),
        shown=jnp.zeros(2, jnp.int32),
    )
    optimizer, state = OPTIMIZER, create_state(params, OPTIMIZER, 0)
    if name == "ppo":
        optimizer = Optimizers(OPTIMIZER, OPTIMIZER)
        state = create_ppo_state(params, optimizer, 0, SMALL.model_width)

    @jax.jit
    def step(state, factor):
        return learn(
            *(algorithm, DECODER, optimizer, state, None, Block(jnp.array([3, 1]), jnp.int32(2))),
            experience,
            complete=lambda params: jax.tree.map(lambda x: x * factor, params),
        )

    after, metrics = step(state, jnp.nan)
    names = ["not_finite", "value_not_finite"] if name == "ppo" else ["not_finite"]
    assert all(float(metrics[name].value()) == 1 for name in names)
    for mean in (metrics["loss"], metrics["gradient_norm"], metrics["entropy"]):
        assert mean.sum == 0 and mean.weight == 0
    _assert_same(after.replace(step=state.step), state)
    assert int(after.step) == 1

    moved, metrics = step(after, 1.0)
    assert all(float(metrics[name].value()) == 0 for name in names)
    assert float(metrics["gradient_norm"].value()) > 0
    gap = optax.tree.norm(jax.tree.map(jnp.subtract, moved.params, params))
    assert 0 < float(gap) < 1


def test_one_of_two_mini_batches_may_be_skipped():
    """Its moments and its part in the metrics are left out, those of the other stay."""
    params, optimizer = {"w": jnp.ones(2)}, optax.adam(0.1)
    opt_state, total = optimizer.init(params), {}
    for gradient in (jnp.array([1.0, 2.0]), jnp.array([jnp.inf, 0.0])):
        terms = LossTerms(gradient.sum(), {"x": Mean(gradient.sum(), jnp.float32(2))})
        params, opt_state, metrics = optimiser_step(
            optimizer, {"w": gradient}, terms, params, opt_state, name="value_"
        )
        total = {name: mean.add(total[name]) if total else mean for name, mean in metrics.items()}
    assert int(opt_state[0].count) == 1
    np.testing.assert_allclose(params["w"], 0.9, atol=1e-6)
    found = {name: float(mean.value()) for name, mean in total.items()}
    assert found.pop("value_gradient_norm") == pytest.approx(5**0.5)
    assert found == {"value_loss": 3.0, "value_not_finite": 0.5, "x": 1.5}


def _assert_same(first, second):
    for left, right in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)
