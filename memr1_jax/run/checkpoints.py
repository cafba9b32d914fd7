"""Checkpoints of a run: saved in the background, complete or not at all; the last and the best."""

import logging
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from memr1_jax.errors import UserError
from memr1_jax.options import user_path
from memr1_jax.parallel.distributed import any_process, is_main
from memr1_jax.run.checksums import damaged_file, has_checksums, write_checksums

FORMAT = 1
_LOG = logging.getLogger(__name__)
_RESERVED = ("format", "arrays", "score")


class Checkpoints:
    """The checkpoints in one folder, each a state (pytree of arrays) and a small JSON `meta`.

    A checkpoint appears under its step number only when it is complete, so a process that is killed
    while saving leaves the ones before it. It carries a SHA-256 of each of its files, which is
    compared before anything is used. Use as a context manager, or call `close`.

    In a run of several processes all of them make the same calls in the same order.

    Args:
        folder: created if missing; on a file system that all processes of the run share.
        keep: how many of the newest checkpoints stay; the one with the best score stays as
            well. With 2 there is one to fall back on.
        read_only: only restore. Needed while training runs: opening for writing clears away
            unfinished saves.

    Raises:
        UserError: the folder cannot be created, does not exist and `read_only` is on, or is not
            the same for all processes.
    """

    def __init__(self, folder: str | os.PathLike, keep: int = 2, *, read_only: bool = False):
        """Opens the folder; see the class."""
        import orbax.checkpoint as ocp

        self.folder = user_path(folder).absolute()
        _open_folder(self.folder, create=not read_only)
        self._scores: dict[int, float | None] = {}
        self._saving = 0
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_names=("state", "meta"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=None if read_only else _LatestAndBest(keep, self._best_of),
                read_only=read_only,
                create=False,
                cleanup_tmp_directories=not read_only,
                async_options=ocp.options.AsyncOptions(
                    post_finalization_callback=self._add_checksums
                ),
            ),
        )

    def save(self, step: int, state: Any, meta: dict[str, Any], score: float | None = None) -> None:
        """Starts saving, and returns once the state may be changed or donated.

        Checkpoints of this step or later are removed first: after a return to an earlier step they
        belong to a run that is no more.

        Args:
            step: number of the checkpoint, at least 0.
            state: pytree of arrays; optax states and typed PRNG keys included.
            meta: values that JSON can hold: the agent, the data position, and the like.
            score: what the best checkpoint has most of, such as a mean reward. None or a value
                that is not finite makes the checkpoint no candidate.

        Raises:
            ValueError: `meta` uses a reserved name.
            UserError: the disk refused an earlier save that ended in the background, or this one.
        """
        import orbax.checkpoint as ocp

        if clash := set(_RESERVED) & set(meta):
            raise ValueError(f"The meta of a checkpoint may not hold {', '.join(sorted(clash))}.")
        arrays = _describe(state)
        for later in self._steps():
            if later >= step:
                self._manager.delete(later)
                self._scores.pop(later, None)
        self.best_step()  # Reads all scores before one is being written.
        score = float(score) if score is not None and math.isfinite(score) else None
        self._scores[step], self._saving = score, step
        meta = {"format": FORMAT, "arrays": arrays, "score": score, **meta}
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
                ),
                force=True,
            )
        except Exception as error:  # A full disk surfaces as OSError or as ValueError.
            raise self._cannot_save(error) from error

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        steps = self._steps()
        return steps[0] if steps else None

    def best_step(self) -> int | None:
        """Returns the best-scored complete checkpoint's step, the newest of equals, or None."""
        return self._best_of(self._steps())

    def restore(self, example: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Loads a checkpoint into the structure and onto the devices of `example`.

        The mesh may be another one than that of the run which saved.

        Args:
            example: the state that is expected, as arrays or as `jax.ShapeDtypeStruct`; leaves
                without a sharding go to the default device.
            step: which checkpoint; None takes the newest that can be read, and warns about
                unreadable newer ones.

        Returns:
            The state, and the meta that was saved with it.

        Raises:
            UserError: there is no such checkpoint, it is damaged or not one of ours, or its
                arrays do not have the expected names, shapes and types.
        """
        self.wait()  # An explicit step may be the one being saved.
        steps = self._steps() if step is None else [step]
        if not steps:
            raise UserError(
                f"There is no checkpoint in {self.folder}. Give the folder of a run that has saved"
                " one, or start without --resume."
            )
        for index, candidate in enumerate(steps):
            try:
                return self._restore(example, candidate)
            except _Unreadable as error:
                if index + 1 == len(steps):
                    raise UserError(str(error)) from error
                _LOG.warning("%s Falling back to step %d.", error, steps[index + 1])
        raise AssertionError("unreachable")

    def wait(self) -> None:
        """Waits until the background save is complete; UserError if the disk refused it."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # A full disk surfaces as OSError or as ValueError.
            raise self._cannot_save(error) from error

    def close(self) -> None:
        """Waits for the last save and frees the threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        """Returns the checkpoints themselves."""
        return self

    def __exit__(self, *_) -> None:
        """Closes the folder."""
        self.close()

    def _add_checksums(self) -> None:
        """Adds checksums once all files are written, before the folder gets its final name."""
        if is_main():
            for folder in self.folder.glob(f"{self._saving}.*tmp*"):
                write_checksums(folder)

    def _steps(self) -> list[int]:
        """Lists complete checkpoints, newest first."""
        self.wait()
        return sorted(self._manager.all_steps(), reverse=True)

    def _best_of(self, steps: Sequence[int]) -> int | None:
        for step in steps:
            if step not in self._scores:
                self._scores[step] = self._saved_score(step)
        scored = [(self._scores[step], step) for step in steps if self._scores[step] is not None]
        return max(scored)[1] if scored else None

    def _saved_score(self, step: int) -> float | None:
        try:
            return self._read_meta(step).get("score")
        except _Unreadable:
            return None  # Restoring it says why.

    def _restore(self, example: Any, step: int) -> tuple[Any, dict[str, Any]]:
        import orbax.checkpoint as ocp

        meta = self._read_meta(step)
        self._verify(step)
        _check_arrays(self.folder / str(step), saved=meta["arrays"], expected=_describe(example))
        arguments = ocp.args.StandardRestore(jax.tree.map(_abstract, example))
        state = self._read(step, "state", ocp.StandardCheckpointHandler(), arguments)
        # Without its file of types, orbax returns random keys as plain numbers.
        if any_process(_describe(state) != meta["arrays"]):
            raise self._unreadable(step)
        return state, {name: value for name, value in meta.items() if name not in _RESERVED}

    def _read_meta(self, step: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        folder = self.folder / str(step)
        if any_process(not folder.is_dir()):
            raise _Unreadable(f"There is no checkpoint {folder}. {self._choices()}")
        self._verify(step, "meta/")
        meta = self._read(step, "meta", ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())
        if not isinstance(meta, dict) or "arrays" not in meta or "format" not in meta:
            raise _Unreadable(f"{folder} was not saved by memr1_jax. Remove or move this folder.")
        if meta["format"] != FORMAT:
            raise _Unreadable(
                f"The checkpoint {folder} has format {meta['format']}, and this version of"
                f" memr1_jax reads format {FORMAT}. Use the version that saved it."
            )
        return meta

    def _verify(self, step: int, part: str = "") -> None:
        """Compares the files with their checksums; only the first process reads them for this."""
        folder, damaged = self.folder / str(step), None
        if is_main():
            if has_checksums(folder):
                damaged = damaged_file(folder, part)
            elif not part and (folder / "state").is_dir():
                _LOG.warning(
                    "The checkpoint %s was saved without checksums, so it cannot be told whether"
                    " its files are intact.",
                    folder,
                )
        if any_process(damaged is not None):
            raise self._unreadable(step, damaged)

    def _read(self, step: int, item: str, handler: Any, arguments: Any) -> Any:
        """Reads one part of a checkpoint, if all processes can.

        By its handler, since the manager's `restore` makes processes that succeed wait for those
        that do not.
        """
        result, problem = None, None
        try:
            result = handler.restore(self.folder / str(step) / item, args=arguments)
        except Exception as error:  # Damaged files surface as nearly any type of exception.
            problem = error
        if any_process(problem is not None):
            raise self._unreadable(step) from problem
        return result

    def _unreadable(self, step: int, damaged: str | None = None) -> "_Unreadable":
        reason = "it is damaged, incomplete, or not one of memr1_jax"
        if damaged is not None:
            reason = f"its file {damaged} is damaged, as the checksums show"
        return _Unreadable(
            f"The checkpoint {self.folder / str(step)} cannot be read: {reason}."
            " Remove or move this folder."
        )

    def _choices(self) -> str:
        steps = ", ".join(map(str, reversed(self._steps())))
        return f"Choose one of the steps {steps}." if steps else "The folder holds none at all."

    def _cannot_save(self, error: Exception) -> UserError:
        self._manager.reload()  # Orbax has forgotten those that it would have deleted afterwards.
        return UserError(
            f"A checkpoint could not be saved in {self.folder} ({_first_line(error)})."
            " Make room on the disk or check the rights of the folder, then resume with --resume."
        )


class _Unreadable(Exception):
    """A checkpoint that another, older one may stand in for."""


class _LatestAndBest:
    """Tells orbax which checkpoints stay: the last `keep`, and the one that `best_of` picks."""

    def __init__(self, keep: int, best_of):
        self.keep, self.best_of = keep, best_of

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self.keep :], self.best_of(steps)}
        return [step in kept for step in steps]


def _open_folder(folder: pathlib.Path, *, create: bool) -> None:
    """Creates the folder, by the first process alone; checks that every process sees it."""
    problem = None
    if create and is_main():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = error
    if any_process(problem is not None):
        reason = f" ({problem.strerror or problem})" if problem else ""
        raise UserError(
            f"The checkpoint folder {folder} cannot be created{reason}."
            " Give a folder in which you may create files."
        ) from problem
    if any_process(not folder.is_dir()):
        raise UserError(
            f"Some processes of this run do not see the checkpoint folder {folder}. Give --output a"
            " folder on a file system that all of them share."
            if create
            else f"There is no checkpoint folder {folder}. Give the folder of a run that has saved"
            " a checkpoint."
        )


def _first_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0][:200]


def _describe(state: Any) -> dict[str, str]:
    """Lists names, types and shapes of arrays: {"params/embedding": "float32[512, 64]"}."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_arrays(folder: pathlib.Path, *, saved: dict[str, str], expected: dict[str, str]) -> None:
    """Compares what a checkpoint holds with what the run needs, before anything is loaded."""
    differences = [
        f"{name} is {saved.get(name, 'missing')} in the checkpoint and"
        f" {expected.get(name, 'unknown')} in this run"
        for name in sorted(saved.keys() | expected.keys())
        if saved.get(name) != expected.get(name)
    ]
    if differences:
        more = len(differences) - 3
        listed = "; ".join(differences[:3]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(
            f"The checkpoint {folder} does not fit this run: {listed}. Use the model and optimiser"
            " settings with which it was saved."
        )
