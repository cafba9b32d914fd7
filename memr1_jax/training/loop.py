"""The loop around the compiled step: batches, logs, samples, checkpoints, progress."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.agents.resampling import drawn_rows
from memr1_jax.agents.rollout import Rollout
from memr1_jax.data.mixtures import Part, dealt, mixed_rows
from memr1_jax.errors import UserError
from memr1_jax.parallel.distributed import is_main
from memr1_jax.rl.means import Mean
from memr1_jax.rl.update import TrainState, WeighedState
from memr1_jax.run.checkpoints import Checkpoints
from memr1_jax.run.files import write_json_atomic
from memr1_jax.run.metrics_log import MetricsLog, read_metrics, records_of
from memr1_jax.run.preemption import Preempted
from memr1_jax.run.progress import progress_bar
from memr1_jax.run.streams import run_generator

_NETWORKS = ("", "value_")  # what the metrics of policy and critic begin with
_TITLES = {
    "manager": "training the manager",
    "answer": "training the answer agent",
    "extractor": "training the fact extractor",
}


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
    oversample: int = 1  # prompts rolled out for each one of the batch
    max_skipped: int = 3  # so many steps in a row without a finite gradient stop the training
    patience: int = 0  # so many validations without a better one do too; 0: none do


def batch_rows(
    seed: int, step: int, rows: int, batch: int, agent: str = "", parts: Sequence[Part] = ()
) -> np.ndarray:
    """Picks the rows of the batch at `step`: epochs of shuffled data, one after another.

    Where there are `parts`, the rows are drawn from them. A function of its arguments alone, so a
    resumed run sees the data the uninterrupted one saw.
    """
    if parts:
        return mixed_rows(seed, step, parts, batch, agent)
    wanted = range(step * batch, (step + 1) * batch)
    return dealt(rows, wanted, lambda epoch: run_generator(seed, agent, "order", part=epoch))


def next_rows(
    stage: Stage, step: int, rows: int, state: TrainState, parts: Sequence[Part] = ()
) -> np.ndarray:
    """Picks the rows that are rolled out at `step`: in turn, or by the odds that a state keeps."""
    count = stage.batch * stage.oversample
    if isinstance(state, WeighedState):
        odds = np.asarray(jax.device_get(state.odds))
        return drawn_rows(stage.seed, step, odds, count, stage.agent)
    return batch_rows(stage.seed, step, rows, count, stage.agent, parts)


def train(
    stage: Stage,
    train_step: Callable,
    state: TrainState,
    arguments: tuple,
    rows: int,
    *,
    parts: Callable[[int], Sequence[Part]] = lambda step: (),
    folder: Path,
    checkpoints: Checkpoints,
    log: MetricsLog,
    describe: Callable[[Rollout], Any],
    put: Callable[[np.ndarray], jax.Array] = jnp.asarray,
    stop: Callable[[], bool] = lambda: False,
    validate: Callable[[dict], float] | None = None,
) -> TrainState:
    """Runs the steps that are left, with a progress bar; logs, samples and checkpoints on the way.

    A checkpoint's score comes from `validate` and is logged as the reward of the phase
    "validation"; without it the mean reward of the steps since the one before it, or where nothing
    is rewarded, less the mean loss.

    Args:
      stage: what to do.
      train_step: from `Learner.make_step`.
      state: where to start; donated.
      arguments: frozen weights, tools and resident data, where the step expects them.
      rows: of the data.
      parts: those of a mixture from which the batch of a step is drawn; none for all rows.
      folder: of the run; samples are written below it.
      checkpoints: of this agent.
      log: of the run.
      describe: turns a rollout into readable records.
      put: brings row numbers and the mask of valid rows to the devices.
      stop: asked after every step, whether to save and end.
      validate: measures the parameters at every checkpoint, but not when `stop` is in a hurry; a
        start that was never saved is measured and saved as well.

    Raises:
      UserError: no gradient was finite in `max_skipped` steps in a row, or the weights are not.
      Preempted: `stop` said so; the state is saved.
    """
    start = int(state.step)
    valid = put(np.ones(stage.batch * stage.oversample, bool))
    samples = folder / "samples" / stage.agent
    scores, skipped = [], 0
    history = _validations(folder, stage.agent, start) if stage.patience else []

    def validated(step, params):
        score = validate(params)
        history.append(score)
        log.write(step, "validation", stage.agent, {"reward": score})
        return score

    if validate is not None and checkpoints.latest_step() is None:
        save(checkpoints, stage, state, validated(start, state.params))
    with progress_bar(stage.steps, _TITLES[stage.agent], start=start) as progress:
        for step in range(start, stage.steps):
            if stage.patience and since_best(history) >= stage.patience:
                if is_main():
                    print(_patient(stage, step, history))
                break
            picked = put(next_rows(stage, step, rows, state, parts(step)))
            state, values, rollout = _timed_step(train_step, state, *arguments, picked, valid)
            _say_skipped(stage, step + 1, values)
            skipped = skipped + 1 if _all_skipped(values) else 0
            ends, stopped = step + 1 == stage.steps, stop()
            due = (step + 1) % stage.checkpoint_every == 0 or ends
            if not skipped:
                scores.append(values.get("reward", -values["loss"]))
            score = sum(scores) / len(scores) if scores else None
            log.write(step + 1, "train", stage.agent, values)
            if validate is not None:
                score = validated(step + 1, state.params) if due else None
            if (step + 1) % stage.samples_every == 0 and is_main():
                described = describe(rollout)
                write_json_atomic(samples / f"step_{step + 1:06d}.json", described)
                log.samples(step + 1, stage.agent, described)
            enough = skipped == stage.max_skipped
            if due or stopped or enough:
                save(checkpoints, stage, state, score)
                scores = []
            if enough:
                checkpoints.wait()
                raise _no_gradient(stage, step + 1)
            progress.update(
                step + 1,
                reward=values.get("reward"),
                loss=values.get("loss"),
                tokens_per_second=values["tokens_per_second"],
            )
            if stopped and not ends:
                checkpoints.wait()
                raise _preempted(stage, step + 1)
    checkpoints.wait()
    return state


def _timed_step(train_step: Callable, *arguments: Any) -> tuple[TrainState, dict, Rollout]:
    """Runs a step to its end; its metrics are numbers, with the seconds that it took."""
    began = time.perf_counter()
    state, metrics, rollout = train_step(*arguments)
    values = metric_values(metrics)
    seconds = time.perf_counter() - began
    prompt, response, present = jax.device_get(
        (rollout.prompt.length, rollout.samples.length, rollout.valid)
    )
    tokens = int((prompt * present).sum() + response.sum())
    return state, values | {"seconds": seconds, "tokens_per_second": tokens / seconds}, rollout


def save(checkpoints: Checkpoints, stage: Stage, state: TrainState, score: float | None) -> None:
    """Saves the state with the identity of the run; the step is also the position in the data.

    Raises:
      UserError: the state is not finite, and so is not saved.
    """
    if not _finite(state):
        last = checkpoints.latest_step()
        kept = "No checkpoint was saved" if last is None else f"The last checkpoint is step {last}"
        raise UserError(
            f"The weights of the {stage.agent} agent are not finite after step {int(state.step)},"
            f" so they are not saved. {kept} in {checkpoints.folder}. Start again with a lower"
            " --learning_rate and another --output."
        )
    meta = {"agent": stage.agent, "identity": stage.identity}
    checkpoints.save(int(state.step), state, meta, score=score)


def resume(checkpoints: Checkpoints, stage: Stage, state: TrainState) -> TrainState:
    """Restores the newest checkpoint's state, or returns `state` where there is none yet.

    Raises:
      UserError: the checkpoint comes from other data or another teacher, or from a later step.
    """
    if checkpoints.latest_step() is None:
        return state
    restored, meta = checkpoints.restore(state)
    then, now = meta["identity"], json.loads(json.dumps(stage.identity))
    # An option that is off was written as 0 where it is None now.
    changed = [n for n in now if n in then and (then[n] or None) != (now[n] or None)]
    if changed:
        listed = ", ".join(f"{name}={now[name]} (was {then[name]})" for name in changed)
        raise UserError(
            f"The run in {checkpoints.folder} was started with other settings: {listed}. Give the"
            " same flags to resume it, or another --output."
        )
    if int(restored.step) > stage.steps:
        raise UserError(
            f"The {stage.agent} agent in {checkpoints.folder} has already learned for"
            f" {int(restored.step)} steps, more than the {stage.steps} that are asked for. Raise"
            f" --{stage.agent}_steps, or give another --output."
        )
    return restored


def since_best(history: Sequence[float]) -> int:
    """Counts the validations after the first of the best ones."""
    return len(history) - 1 - history.index(max(history)) if history else 0


def _validations(folder: Path, agent: str, step: int) -> list[float]:
    """Reads the rewards of an agent's validations up to a step, in order."""
    path = folder / "metrics.jsonl"
    found = records_of(read_metrics(path), agent, "validation") if path.exists() else []
    return [record["reward"] for record in found if record["step"] <= step]


def _patient(stage: Stage, step: int, history: list[float]) -> str:
    return (
        f"The {stage.agent} agent stops at step {step} of {stage.steps}: no validation was better"
        f" than {max(history):.4g} in the last {since_best(history)} (--patience)."
    )


@jax.jit
def _finite(state: TrainState) -> jax.Array:
    """Tells that every number of a state is finite: weights, moments, critic."""
    numbers = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(x).all() for x in numbers]).all()


def _say_skipped(stage: Stage, step: int, values: dict[str, float]) -> None:
    share = max(values.get(f"{name}not_finite", 0.0) for name in _NETWORKS)
    if share and is_main():
        print(
            f"Step {step} of the {stage.agent} agent skipped {share:.0%} of its updates: their"
            " gradient is not finite. The weights are what they were before them."
        )


def _all_skipped(values: dict[str, float]) -> bool:
    """Tells that a network took none of its optimiser steps; its loss is then no value."""
    networks = [name for name in _NETWORKS if values.get(f"{name}not_finite") == 1.0]
    for name in networks:
        del values[f"{name}loss"], values[f"{name}gradient_norm"]
    return bool(networks)


def _preempted(stage: Stage, step: int) -> Preempted:
    return Preempted(
        f"Saved step {step} of {stage.steps} of the {stage.agent} agent and stopped, as asked. Give"
        " the same flags and --resume to continue."
    )


def _no_gradient(stage: Stage, step: int) -> UserError:
    return UserError(
        f"The {stage.agent} agent had no finite gradient in {stage.max_skipped} steps in a row, the"
        f" last of them step {step}. They changed nothing: the weights before them are saved as"
        f" step {step}. Give the same flags and --resume to continue with other prompts, or start"
        " again with a lower --learning_rate and another --output."
    )


def metric_values(metrics: dict[str, Mean]) -> dict[str, float]:
    """Sums over weights, as Python floats."""
    metrics = jax.device_get(metrics)
    return {
        name: float(mean.sum / mean.weight) if mean.weight else 0.0
        for name, mean in sorted(metrics.items())
    }


def fingerprint(tree: Any) -> str:
    """Returns a short digest of all arrays of a pytree, to tell data sets apart."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
