"""Metrics as (sum, weight) pairs, so that micro-batches and devices add up exactly."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Mean:
    """A mean that has not been divided yet: two float32 scalars that add over any split."""

    sum: jax.Array  # []
    weight: jax.Array  # []

    def add(self, other: "Mean") -> "Mean":
        """Joins both parts in one mean; the same as adding the two pytrees leaf by leaf."""
        return Mean(self.sum + other.sum, self.weight + other.weight)

    def value(self) -> jax.Array:
        """Returns the mean as a float32 scalar; 0 where nothing was counted."""
        return jnp.where(self.weight > 0, self.sum / jnp.maximum(self.weight, 1e-8), 0.0)


def masked_mean(values: jax.Array, mask: jax.Array) -> Mean:
    """Averages the unmasked values, outside the gradient path.

    Args:
        values: [...], any numeric type; masked entries may be anything, NaN included.
        mask: [...], broadcast against `values`; non-zero where a value counts.
    """
    counts = jnp.broadcast_to(mask, values.shape).astype(bool)
    kept = jnp.where(counts, jax.lax.stop_gradient(values).astype(jnp.float32), 0.0)
    return Mean(kept.sum(), counts.sum().astype(jnp.float32))


def masked_means(values: dict[str, jax.Array], mask: jax.Array) -> dict[str, Mean]:
    """Takes the `masked_mean` of each value by name, all with the same mask."""
    return {name: masked_mean(value, mask) for name, value in values.items()}


def weighted_mean(values: jax.Array, mask: jax.Array, weights: jax.Array | None) -> Mean:
    """Averages the unmasked values by weight; None weighs all alike."""
    if weights is None:
        return masked_mean(values, mask)
    kept = jnp.where(mask, jax.lax.stop_gradient(weights), 0.0)
    return Mean((kept * values).sum(), kept.sum())


def fields(record: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass by name."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def once(value: jax.Array) -> Mean:
    """Returns one observation as a `Mean`."""
    return Mean(jnp.asarray(value, jnp.float32), jnp.float32(1))
