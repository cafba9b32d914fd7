"""DAPO's dynamic sampling in fixed shapes: more prompts than are learned from are rolled out.

DAPO (arXiv 2503.14476) samples until a batch holds no group of equal rewards. Here K times as many
prompts are rolled out, in parts, and the most informative groups are kept. Prompts whose samples
all earned the same are drawn less often from then on.

Axis letters: B prompts that are learned from, K parts, G samples a prompt.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.agents.rollout import Rollout
from memr1_jax.rl.advantages import informative_groups, score_variance
from memr1_jax.rl.means import masked_mean, weighted_mean
from memr1_jax.run.streams import run_generator


def drawn_rows(seed: int, step: int, odds: np.ndarray, count: int, agent: str = "") -> np.ndarray:
    """Draws `count` of the rows by their `odds`, without repeats as long as there are others.

    A function of its arguments alone; by the Gumbel-top-k trick (arXiv 1903.06059).
    """
    rows = len(odds)
    generator = run_generator(seed, agent, "odds", part=step)
    whole, rest = divmod(count, rows)
    order = np.argsort(-(np.log(odds) + generator.gumbel(size=rows)), kind="stable")
    return np.concatenate([*[np.arange(rows)] * whole, order[:rest]]).astype(np.int32)


def rollout_in_parts(
    rollout_of: Callable[[jax.Array, jax.Array, jax.Array], Rollout],
    rows: jax.Array,
    valid: jax.Array,
    key: jax.Array,
    batch: int,
) -> Rollout:
    """Rolls out rows `[K B]` in parts of B, one after another: leaves `[K B, ...]`.

    Args:
      rollout_of: makes a rollout of rows `[B]`, which of them are valid, and a random key.
      rows: `[K B]`.
      valid: `[K B]`.
      key: of the step.
      batch: B.
    """
    parts = len(rows) // batch

    def one(part):
        place, *picked = part
        return rollout_of(*picked, jax.random.fold_in(key, place))

    cut = (x.reshape(parts, batch) for x in (rows, valid))
    found = jax.lax.map(one, (jnp.arange(parts), *cut))
    metrics = jax.tree.map(lambda x: x.sum(0), found.metrics)
    whole = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found.replace(metrics={}))
    return whole.replace(metrics=metrics)


def most_informative(rollout: Rollout, batch: int) -> Rollout:
    """Keeps the B groups whose rewards differ most; of equal ones those that came first.

    The metric `reward` of the update is then that of what is kept, `reward_of_all` that of all.
    """
    variance = score_variance(rollout.rewards, rollout.weights)
    score = jnp.where(rollout.valid, variance, -1.0)
    kept = jax.lax.top_k(score, batch)[1]
    valid = rollout.valid
    metrics = rollout.metrics | {
        "reward_of_all": weighted_mean(rollout.rewards, valid[:, None], rollout.weights),
        "informative_of_all": masked_mean(
            informative_groups(rollout.rewards, rollout.weights), valid
        ),
    }
    chosen = jax.tree.map(lambda x: x[kept], rollout.replace(metrics={}))
    return chosen.replace(metrics=metrics)


def remembered(
    odds: jax.Array, rows: jax.Array, valid: jax.Array, rollout: Rollout, flat_odds: float
) -> jax.Array:
    """Returns the odds `[rows of the data]` after prompts `rows` have been rolled out."""
    informative = informative_groups(rollout.rewards, rollout.weights)
    now = jnp.where(informative, 1.0, flat_odds)
    place = jnp.where(valid, rows, len(odds))
    return odds.at[place].set(now, mode="drop")
