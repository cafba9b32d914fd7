"""The loop around the compiled step: batches, logs, samples, checkpoints, progress."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memr1_jax.agents.rollout import Rollout
from memr1_jax.errors import UserError
from memr1_jax.parallel.distributed import is_main
from memr1_jax.rl.metrics import Mean
from memr1_jax.rl.update import TrainState
from memr1_jax.run.checkpoints import Checkpoints
from memr1_jax.run.files import write_json_atomic
from memr1_jax.run.metrics_log import MetricsLog
from memr1_jax.run.preemption import Preempted
from memr1_jax.run.progress import progress_bar

_TITLES = {"manager": "training the manager", "answer": "training the answer agent"}


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
    arguments: tuple,
    rows: int,
    *,
    folder: Path,
    checkpoints: Checkpoints,
    log: MetricsLog,
    describe: Callable[[Rollout], Any],
    put: Callable[[np.ndarray], jax.Array] = jax.numpy.asarray,
    stop: Callable[[], bool] = lambda: False,
    validate: Callable[[dict], float] | None = None,
) -> TrainState:
    """Runs the steps that are left, with a progress bar; logs, samples and checkpoints on the way.

    A checkpoint's score is what `validate` says, which is logged as the reward of the phase
    "validation"; without it the mean reward of the steps since the one before it, or where nothing
    is rewarded, less the mean loss.

    Args:
      stage: what to do.
      train_step: from `Learner.make_step`.
      state: where to start; donated.
      arguments: frozen weights, tools and resident data, where the step expects them.
      rows: of the data.
      folder: of the run; samples are written below it.
      checkpoints: of this agent.
      log: of the run.
      describe: turns a rollout into readable records.
      put: brings row numbers and the mask of valid rows to the devices.
      stop: asked after every step, whether to save and end.
      validate: measures the parameters at every checkpoint, but not when `stop` is in a hurry; a
        start that was never saved is measured and saved as well.

    Raises:
      UserError: the loss is not a number.
      Preempted: `stop` said so; the state is saved.
    """
    start = int(state.step)
    valid = put(np.ones(stage.batch, bool))
    samples = folder / "samples" / stage.agent
    scores = []

    def validated(step, params):
        score = validate(params)
        log.write(step, "validation", stage.agent, {"reward": score})
        return score

    if validate is not None and checkpoints.latest_step() is None:
        save(checkpoints, stage, state, validated(start, state.params))
    with progress_bar(stage.steps, _TITLES[stage.agent], start=start) as progress:
        for step in range(start, stage.steps):
            began = time.perf_counter()
            picked = put(batch_rows(stage.seed, step, rows, stage.batch))
            state, metrics, rollout = train_step(state, *arguments, picked, valid)
            values = metric_values(metrics)
            if not np.isfinite(values["loss"]):
                raise UserError(
                    f"The loss of the {stage.agent} agent is not a number at step {step + 1}."
                    " Lower --learning_rate; the last checkpoint is intact."
                )
            seconds = time.perf_counter() - began
            prompt, response, present = jax.device_get(
                (rollout.prompt.length, rollout.samples.length, rollout.valid)
            )
            tokens = int((prompt * present).sum() + response.sum())
            values |= {"seconds": seconds, "tokens_per_second": tokens / seconds}
            ends, stopped = step + 1 == stage.steps, stop()
            due = (step + 1) % stage.checkpoint_every == 0 or ends
            scores.append(values.get("reward", -values["loss"]))
            score = sum(scores) / len(scores)
            log.write(step + 1, "train", stage.agent, values)
            if validate is not None:
                score = validated(step + 1, state.params) if due else None
            if (step + 1) % stage.samples_every == 0 and is_main():
                samples.mkdir(parents=True, exist_ok=True)
                write_json_atomic(samples / f"step_{step + 1:06d}.json", describe(rollout))
            if due or stopped:
                save(checkpoints, stage, state, score)
                scores = []
            progress.update(
                step + 1,
                reward=values.get("reward"),
                loss=values["loss"],
                tokens_per_second=values["tokens_per_second"],
            )
            if stopped and not ends:
                checkpoints.wait()
                raise Preempted(
                    f"Saved step {step + 1} of {stage.steps} of the {stage.agent} agent and"
                    " stopped, as asked. Give the same flags and --resume to go on."
                )
    checkpoints.wait()
    return state


def save(checkpoints: Checkpoints, stage: Stage, state: TrainState, score: float | None) -> None:
    """Saves the state with the identity of the run; the step is also the position in the data."""
    meta = {"agent": stage.agent, "identity": stage.identity}
    checkpoints.save(int(state.step), state, meta, score=score)


def resume(checkpoints: Checkpoints, stage: Stage, state: TrainState) -> TrainState:
    """The newest checkpoint's state, or `state` where there is none yet.

    Raises:
      UserError: the checkpoint belongs to a run with other settings.
    """
    if checkpoints.latest_step() is None:
        return state
    restored, meta = checkpoints.restore(state)
    then, now = meta["identity"], json.loads(json.dumps(stage.identity))
    # What is off was written as 0 where it is None now, and an option that is new is not there.
    changed = [name for name in now if (then.get(name) or None) != (now[name] or None)]
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
