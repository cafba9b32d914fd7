"""The loop around the compiled step: batches, logs, samples, checkpoints, progress."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.agents.rollout import Rollout
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import AnswerData, ManagerData
from memr1_jax.errors import UserError
from memr1_jax.rl.metrics import Mean
from memr1_jax.rl.update import TrainState
from memr1_jax.training.checkpoints import Checkpoints
from memr1_jax.training.files import write_json_atomic
from memr1_jax.training.metrics_log import MetricsLog
from memr1_jax.training.progress import progress_bar
from memr1_jax.training.step import Frozen


@dataclasses.dataclass(frozen=True)
class Stage:
    """One agent's training: how long, on what order of the data, and what is kept of it.

    `identity` names everything that a resumed run must share with the one that it continues.
    """

    agent: str
    steps: int
    batch: int
    seed: int
    checkpoint_every: int
    samples_every: int
    identity: dict[str, Any]


def batch_rows(seed: int, step: int, rows: int, batch: int) -> np.ndarray:
    """Row numbers of the batch at `step`: epochs of shuffled data, one after another.

    A function of its arguments alone, so a resumed run sees the data the uninterrupted one saw.
    """
    wanted = np.arange(step * batch, (step + 1) * batch)
    epochs = {
        epoch: np.random.default_rng([seed, epoch]).permutation(rows)
        for epoch in np.unique(wanted // rows)
    }
    return np.array([epochs[place // rows][place % rows] for place in wanted], np.int32)


def train(
    stage: Stage,
    train_step: Callable,
    state: TrainState,
    frozen: Frozen,
    tools: Tools,
    data: AnswerData | ManagerData,
    *,
    folder: Path,
    checkpoints: Checkpoints,
    log: MetricsLog,
    describe: Callable[[Rollout], list[dict]],
) -> TrainState:
    """Runs the stage from `state.step` to its end and returns the last state.

    Args:
      stage: see `Stage`.
      train_step: from `make_train_step`.
      state: where to start; donated.
      frozen: weights that do not change.
      tools: see `Tools`.
      data: the resident data set.
      folder: the run folder; rollouts to read go to `samples/`.
      checkpoints: of this agent.
      log: of the run.
      describe: turns a rollout into readable records.
    """
    data = jax.tree.map(jnp.asarray, data)
    start = int(state.step)
    valid = jnp.ones(stage.batch, bool)
    samples = folder / "samples" / stage.agent
    samples.mkdir(parents=True, exist_ok=True)
    title = (
        f"training the {stage.agent} agent" if stage.agent == "answer" else "training the manager"
    )
    with progress_bar(stage.steps, title, start=start) as progress:
        for step in range(start, stage.steps):
            began = time.perf_counter()
            rows = batch_rows(stage.seed, step, data.rows, stage.batch)
            state, metrics, rollout = train_step(
                state, frozen, tools, data, jnp.asarray(rows), valid
            )
            values = metric_values(metrics)
            if not np.isfinite(values["loss"]):
                raise UserError(
                    f"The loss of the {stage.agent} agent is not a number at step {step + 1}."
                    " Lower --learning_rate; the last checkpoint is intact."
                )
            seconds = time.perf_counter() - began
            prompt, response = jax.device_get((rollout.prompt.length, rollout.samples.length))
            tokens = int(prompt.sum() + response.sum())
            values |= {"seconds": seconds, "tokens_per_second": tokens / seconds}
            log.write(step + 1, "train", stage.agent, values)
            if (step + 1) % stage.samples_every == 0:
                write_json_atomic(samples / f"step_{step + 1:06d}.json", describe(rollout))
            if (step + 1) % stage.checkpoint_every == 0 or step + 1 == stage.steps:
                save(checkpoints, stage, state)
            progress.update(
                step + 1,
                reward=values["reward"],
                loss=values["loss"],
                tokens_per_second=values["tokens_per_second"],
            )
    checkpoints.wait()
    return state


def save(checkpoints: Checkpoints, stage: Stage, state: TrainState) -> None:
    """Saves the state with the identity of the run; the step is also the position in the data."""
    checkpoints.save(int(state.step), state, {"agent": stage.agent, "identity": stage.identity})


def resume(checkpoints: Checkpoints, stage: Stage, state: TrainState) -> TrainState:
    """The newest checkpoint's state, or `state` where there is none yet.

    Raises:
      UserError: the checkpoint belongs to a run with other settings.
    """
    if checkpoints.latest_step() is None:
        return state
    restored, meta = checkpoints.restore(state)
    then, now = meta["identity"], json.loads(json.dumps(stage.identity))
    changed = [name for name in now if then.get(name) != now[name]]
    if changed:
        listed = ", ".join(f"{name} (was {then.get(name)!r})" for name in changed)
        raise UserError(
            f"The run in {checkpoints.folder} was started with other settings: {listed}."
            " Give the same flags to go on with it, or another --output to start anew."
        )
    return restored


def metric_values(metrics: dict[str, Mean]) -> dict[str, float]:
    """Sums over weights, as Python floats."""
    metrics = jax.device_get(metrics)
    return {
        name: float(mean.sum / mean.weight) if mean.weight else 0.0
        for name, mean in sorted(metrics.items())
    }


def fingerprint(tree: Any) -> str:
    """A short digest of all arrays of a pytree, to tell data sets apart."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
