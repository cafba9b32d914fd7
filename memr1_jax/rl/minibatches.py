"""Passes over one rollout: epochs of shuffled mini-batches, each the sum of micro-batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memr1_jax.rl.losses import LossTerms
from memr1_jax.rl.means import Mean, once


def run_mini_batches(
    step: Callable[[Any, Any], tuple[Any, dict]],
    state: Any,
    batch: Any,
    key: jax.Array,
    *,
    epochs: int,
    mini_batches: int,
) -> tuple[Any, dict]:
    """Runs `state, metrics = step(state, part)` over the mini-batches of every epoch, as one scan.

    Each epoch deals the prompts out again. One epoch of one mini-batch is one plain call.

    Args:
        step: one optimiser step.
        state: what the steps change.
        batch: leaves `[B, ...]`, where `mini_batches` divides B.
        key: decides the order of the prompts.
        epochs: passes over the batch.
        mini_batches: steps per pass.

    Returns:
        The state after the last step, and metrics added over all steps.
    """
    if epochs == mini_batches == 1:
        return step(state, batch)
    prompts = jax.tree.leaves(batch)[0].shape[0]
    orders = jax.vmap(lambda key: jax.random.permutation(key, prompts))(
        jax.random.split(key, epochs)
    )

    def one_step(state, rows):
        return step(state, jax.tree.map(lambda x: x[rows], batch))

    rows = orders.reshape(epochs * mini_batches, -1)
    state, metrics = jax.lax.scan(one_step, state, rows)
    return state, jax.tree.map(lambda x: x.sum(0), metrics)


def accumulate_gradients(
    loss: Callable[[Any, Any], LossTerms], params: Any, batch: Any, parts: int
) -> tuple[Any, LossTerms]:
    """Adds up gradient and terms of a loss over `parts` slices of the batch, one at a time.

    Equal to those of the whole where `loss` divides by counts of the whole; one part is a plain
    call.
    """

    def value(params, part):
        terms = loss(params, part)
        return terms.loss, terms

    def one_part(part):
        (_, terms), gradient = jax.value_and_grad(value, has_aux=True)(params, part)
        return gradient, terms

    if parts == 1:
        return one_part(batch)
    slices = split(batch, parts)
    _, terms = jax.eval_shape(value, params, jax.tree.map(lambda x: x[0], slices))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, terms))
    total, _ = jax.lax.scan(
        lambda total, part: (jax.tree.map(jnp.add, total, one_part(part)), None), zeros, slices
    )
    return total


def optimiser_step(
    optimizer: optax.GradientTransformation,
    gradient: Any,
    terms: LossTerms,
    params: Any,
    opt_state: Any,
    name: str = "",
) -> tuple[Any, Any, dict[str, Mean]]:
    """Steps the optimiser where loss and gradient are finite; else nothing changes (as in verl).

    Args:
        optimizer: of these parameters.
        gradient: of the whole mini-batch.
        terms: its loss and metrics; those of a skipped step are not counted.
        params: before the step.
        opt_state: before the step.
        name: stands before the names of the metrics added here.

    Returns:
        Parameters and optimiser state after the step, and metrics: those of `terms` with `loss`,
        `gradient_norm` and `not_finite`, the share of steps that were skipped.
    """
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(norm) & jnp.isfinite(terms.loss)

    def moved(params, opt_state):
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    # A branch: a choice of each leaf would hold weights and moments twice.
    after = jax.lax.cond(finite, moved, lambda *before: before, params, opt_state)
    own = {f"{name}loss": once(terms.loss), f"{name}gradient_norm": once(norm)}
    metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), terms.metrics | own)
    return *after, metrics | {f"{name}not_finite": once(~finite)}


def map_parts(function: Callable[[Any], Any], batch: Any, parts: int) -> Any:
    """Computes `function` of the whole batch, slice by slice; one part is a plain call."""
    if parts == 1:
        return function(batch)
    return jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(function, split(batch, parts))
    )


def split(batch: Any, parts: int) -> Any:
    """Splits `[B, ...]` leaves into `[parts, B / parts, ...]`."""
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
