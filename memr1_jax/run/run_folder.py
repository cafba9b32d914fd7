"""The folder of a run: held by one process, and with a record of what the run was begun with.

`run.json` is written when a run begins: the command, the version of the package, the options that
a figure may depend on, and digests of models, data and prompts. A run that is resumed must agree
with it. A folder in which a run began but brought nothing yet counts as new.
Older versions kept the options alone, in files of other names.
"""

import dataclasses
import functools
import json
import os
import pathlib
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from memr1_jax import __version__
from memr1_jax.errors import UserError
from memr1_jax.options import current_names, flag_values, option, user_path
from memr1_jax.parallel.distributed import any_process, is_main
from memr1_jax.run.files import RUN_MARKS, holds_run, prepare_run_folder, write_json_atomic
from memr1_jax.run.json_files import read_json
from memr1_jax.run.lock import hold, release
from memr1_jax.run.typed_records import typed

RECORD = "run.json"
RECORDS = (RECORD, "settings.json", "options.json")
_WAYS = (
    "Give the same options to resume it, --output another folder, or --overwrite, which moves the"
    " old run aside."
)


@dataclasses.dataclass(frozen=True)
class OutputConfig:
    """Choose the folder for everything that is written."""

    output: str = option(
        "runs/locomo_grpo", "Folder of the run: a new or an empty one, or its own."
    )
    overwrite: bool = option(
        False, "Move what another run has left in the folder aside; nothing is deleted."
    )
    compilation_cache: str = option(
        "auto",
        "Folder of compiled programs, which a second start reads instead of compiling; auto: in the"
        " cache folder, none: nothing is kept.",
    )


@dataclasses.dataclass(frozen=True)
class Input:
    """A model, file or prompt that figures depend on: how it is named, and what it holds."""

    name: str
    digest: str


class RunFolder:
    """A folder that this process holds for a run. Use as a context manager, or call `close`.

    With several processes the first one alone looks, writes and holds.

    Attributes:
        path: absolute.
        begun: whether the folder holds what the same run left when it was interrupted.
    """

    def __init__(
        self,
        output: str | os.PathLike,
        job: str,
        options: Any,
        *,
        resume: bool,
        overwrite: bool = False,
        free: Collection[str] = (),
        may_turn_on: Collection[str] = (),
        marks: Collection[str] = RUN_MARKS,
    ):
        """Creates and holds the folder; compares the options with those of the run in it.

        Args:
            output: the folder; missing parents are created.
            job: what kind of run it is, in a word.
            options: a dataclass, which may hold further ones.
            resume: whether a run that the folder holds is continued.
            overwrite: whether such a run is moved aside first.
            free: options on which no figure depends, or whose `Input` is compared instead.
            may_turn_on: options that may be True now where they were False.
            marks: patterns of files that show that a run has brought something.

        Raises:
            UserError: the folder cannot be used, another process has it, it holds a run and
                neither `resume` nor `overwrite` is given, or that run has other options.
        """
        self.path = user_path(output).absolute()
        self._job, self._marks, self._may_turn_on = job, marks, frozenset(may_turn_on)
        values = json.loads(json.dumps(flag_values(options)))
        self._current = functools.partial(current_names, options)
        self._options = {name: x for name, x in values.items() if name not in free}
        problem, self.begun = None, False
        if is_main():
            try:
                self._open(resume, overwrite)
            except UserError as error:
                problem = error
        self._agree(problem)
        self.begun = any_process(self.begun)

    def record(self, inputs: Mapping[str, Input]) -> None:
        """Compares the inputs with those of the run in the folder, and writes what is missing.

        Args:
            inputs: by the option that names them, or by a name of their own.

        Raises:
            UserError: an input is another one than the run was begun with.
        """
        problem = None
        if is_main():
            try:
                self._record({name: dataclasses.asdict(value) for name, value in inputs.items()})
            except UserError as error:
                problem = error
        self._agree(problem)

    def close(self) -> None:
        """Frees the folder."""
        release(self.path)

    def __enter__(self) -> "RunFolder":
        """Returns the folder itself."""
        return self

    def __exit__(self, *_) -> None:
        """Closes the folder."""
        self.close()

    def _agree(self, problem: UserError | None) -> None:
        """Raises the problem of the first process in all of them."""
        if any_process(problem is not None):
            self.close()
            raise problem or UserError(
                f"The first process refused the run folder {self.path}; its message says why."
            )

    def _open(self, resume: bool, overwrite: bool) -> None:
        prepare_run_folder(self.path, resume=True)
        hold(self.path)
        if overwrite and (holds_run(self.path) or (self.path / RECORD).exists()):
            print(f"The run that was in {self.path} is now in {set_aside(self.path)}.")
            release(self.path)
            prepare_run_folder(self.path, resume=True)
            hold(self.path)
        prepare_run_folder(self.path, resume)
        self.begun = holds_run(self.path, self._marks)
        if self.begun:
            self._compare_options()
        else:  # A start that came to nothing leaves no record either.
            (self.path / RECORD).unlink(missing_ok=True)

    def _compare_options(self) -> None:
        then = _read_record(self.path)
        job = then.get("job", self._job)
        if job != self._job:
            raise UserError(
                f"The folder {self.path} holds files of another command ({job}, not {self._job})."
                " Give --output another folder, or --overwrite, which moves these files aside."
            )
        was, changed = self._current(then.get("options", {})), []
        for name, now in self._options.items():
            # What is off was written as 0 where it is None now.
            if name not in was or was[name] in (now, str(now)) or not (was[name] or now):
                continue
            if not (name in self._may_turn_on and now is True):
                changed.append(f"--{name}={now} (was {was[name]})")
        if changed:
            raise UserError(
                f"The run in {self.path} was begun with other options: {', '.join(changed)}."
                f" {_WAYS}"
            )
        version = then.get("version", __version__)
        if version != __version__:
            warnings.warn(
                f"The run in {self.path} was begun with version {version} of memr1_jax and resumes"
                f" with version {__version__}, which may compute differently.",
                stacklevel=2,
            )

    def _record(self, inputs: dict[str, dict[str, str]]) -> None:
        then = _read_record(self.path)
        was = then.get("inputs", {})
        if changed := [
            _change(name, was[name], now)
            for name, now in inputs.items()
            if name in was and was[name]["digest"] != now["digest"]
        ]:
            raise UserError(
                f"The run in {self.path} was begun with other inputs: {', '.join(changed)}."
                f" Give the same ones. {_WAYS}"
            )
        options = then.get("options") if "version" in then else None  # else of an older version
        now = {
            "job": self._job,
            "version": then.get("version", __version__),
            "options": options or self._options,
            "inputs": {**was, **inputs},
        }
        if now != then:
            write_json_atomic(self.path / RECORD, now)


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Renames a file or folder to the first free of `NAME.old-1`, `NAME.old-2`, ..."""
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    try:
        return path.rename(aside)
    except OSError as error:
        raise UserError(
            f"{path} cannot be moved aside to {aside} ({error.strerror or error}). Move it"
            " yourself, or give --output another folder."
        ) from error


def _change(name: str, was: Mapping[str, str], now: Mapping[str, str]) -> str:
    if was["name"] != now["name"]:
        return f"{name}={now['name']} (was {was['name']})"
    digests = f"sha256 {now['digest'][:12]}, was {was['digest'][:12]}"
    return f"{name}={now['name']}, whose contents have changed ({digests})"


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
    """Reads `run.json`, or what older versions wrote instead; empty if neither is there.

    Raises:
        UserError: the record is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return _older_record(folder)
    advice = (
        "The record of the run was damaged: put back a copy, or remove it, and the options in"
        " flags.txt are compared instead."
    )
    found = read_json(path, advice)
    try:
        parts = typed(dict[str, Any], found)
        typed(dict[str, Any], parts.get("options"), "options")
        typed(dict[str, Input], parts.get("inputs"), "inputs")
    except ValueError as error:
        raise UserError(f"{path}: this is no record of a run ({error}). {advice}") from error
    return parts


def _older_record(folder: pathlib.Path) -> dict[str, Any]:
    flags = folder / "flags.txt"
    if flags.exists():
        lines = flags.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.removeprefix("--").partition("=") for line in lines)
        return {"options": {name: value for name, _, value in pairs}}
    for name, part in zip(RECORDS[1:], ("settings", None), strict=True):
        if (folder / name).exists():
            found = read_json(folder / name, "The file was damaged: give --output another folder.")
            options = found.get(part) if part and isinstance(found, dict) else found
            return {"options": options if isinstance(options, dict) else {}}
    return {}
