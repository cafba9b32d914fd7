"""Flag files: found by path or by name, read with those that they include."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from memr1_jax.errors import UserError

# Those that come with the package: the folders are installed side by side.
HOME = Path(__file__).parents[1] / "experiments" / "flags"
_PAPER = re.compile(r"^--flagfile=\S*/paper/(.|\n)*^--model=(?P<model>\S+)", re.MULTILINE)
_FLAG = ("--flagfile", "-flagfile")


def expanded(arguments: Sequence[str]) -> list[str]:
    """Puts the lines of flag files in the place of `--flagfile=FILE`, so that later flags win.

    Lines that are empty or begin with # or // say nothing. A file is looked for where the name
    points, then next to the file that includes it, then among those of the package, by name
    (`quickstart.flags`) or as a path in the repository (`experiments/flags/quickstart.flags`).

    Raises:
      UserError: a file is missing, unreadable or includes itself.
    """
    return _expanded(list(arguments), ())


def paper_file(model: str, algorithm: str) -> Path:
    """Finds the flag file of the paper's settings for a model, in any spelling of its name.

    Raises:
      UserError: there is none for this model and algorithm.
    """
    found = {}
    for path in sorted(HOME.glob("*.flags")):
        if named := _PAPER.search(path.read_text(encoding="utf-8")):
            found[_letters(named["model"]), path.stem.split("_", 2)[2]] = path
    chosen = _letters(model), algorithm.lower().replace("-", "_")
    if chosen not in found:
        known = ", ".join(f"{path.stem}" for path in found.values())
        raise UserError(
            f"The package has no settings of the paper for {model!r} with {algorithm!r}. It has"
            f" {known}."
        )
    return found[chosen]


def _letters(model: str) -> str:
    """Leaves of a model's name what all its spellings share: `llama318b`."""
    name = model.rsplit("/", 1)[-1].lower().removesuffix("-instruct").removesuffix("-it")
    return re.sub("[^a-z0-9]", "", name)


def _expanded(arguments: list[str], within: tuple[Path, ...]) -> list[str]:
    found = []
    while arguments:
        flag, equals, name = (argument := arguments.pop(0)).partition("=")
        if flag not in _FLAG:
            found.append(argument)
            continue
        if not equals:
            name = arguments.pop(0) if arguments else ""
        path = _find(name.strip(), within)
        if path in within:
            circle = " includes ".join(str(file) for file in (*within[within.index(path) :], path))
            raise UserError(f"Flag files include each other in a circle: {circle}. Break it.")
        found += _expanded(_lines(path), (*within, path))
    return found


def _find(name: str, within: tuple[Path, ...]) -> Path:
    where = f" in {within[-1]}" if within else ""
    if not name:
        raise UserError(f"--flagfile{where} names no file. Write --flagfile=FILE.")
    try:
        given = Path(name).expanduser()
    except RuntimeError as error:  # ~nobody
        raise UserError(f"--flagfile={name}{where} names no file: {error}") from error
    near = [within[-1].parent] if within else []
    for folder in (Path(), *near, HOME, HOME.parents[1]):
        if os.path.exists(folder / given):  # False as well where the system refuses the name
            return (folder / given).resolve()
    known = ", ".join(sorted(path.name for path in HOME.glob("*.flags")))
    raise UserError(
        f"There is no flag file {name}, where --flagfile{where} points. Give a path, or the name of"
        f" one that comes with the package: {known}."
    )


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"The flag file {path} cannot be read: {why}.") from error
    lines = []
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        if line and not line.startswith(("#", "//")):
            if not line.startswith("-"):
                raise UserError(
                    f"{path}, line {number}: {line[:80]!r} is no flag. Write one --flag=value a"
                    " line."
                )
            lines.append(_placed(line))
    return lines


def _placed(line: str) -> str:
    """Points a value such as `experiments/questions/...` to the package where it is not here."""
    flag, _, value = line.partition("=")
    there = HOME.parents[1] / value
    if value.startswith("experiments/") and not os.path.exists(value) and there.exists():
        return f"{flag}={there}"
    return line
