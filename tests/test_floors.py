"""Holds the design's table of floors: a folder imports from floors below its own, never above."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "text": 0,
    "parallel": 1,
    "memory": 2,
    "run": 3,
    "models": 4,
    "data": 5,
    "rl": 6,
    "agents": 7,
    "evals": 8,
    "training": 9,
    "inference": 10,
    "service": 11,
    "planner": 12,
    "bench": 13,
    "studies": 14,
}
FACE = "__init__.py"  # the package's own: on first use it imports from inference and below
OUTSIDE = -1  # modules of the package itself know no floor
ABOVE = ("experiments", "tpu_scripts", "tests")
MODULES = sorted((ROOT / "memr1_jax").rglob("*.py"))


def imported(source: str) -> set[str]:
    """Returns the dotted names that a module imports anywhere, those in functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {
                "." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names
            }
    return found


def above(folder: str, names: set[str]) -> list[str]:
    """Returns the names that a module in a folder of the package may not import."""
    own, wrong = FLOORS.get("inference" if folder == FACE else folder, OUTSIDE), []
    for name in sorted(names):
        package, _, rest = name.partition(".")
        lies = FLOORS.get(rest.split(".")[0], OUTSIDE)
        if name.startswith(".") or package in ABOVE or (package == "memr1_jax" and lies > own):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_imports_from_above(path):
    folder = path.relative_to(ROOT / "memr1_jax").parts[0]
    assert above(folder, imported(path.read_text(encoding="utf-8"))) == []


def test_imports_from_above_are_found():
    source = """
import memr1_jax.evals.metrics
from memr1_jax.text import words
from memr1_jax import errors, agents
def later():
    from memr1_jax.training.loop import train
    from experiments import evaluate
    from . import bank
"""
    names = imported(source)
    assert above("memory", names) == [
        *("..bank", "experiments.evaluate", "memr1_jax.agents"),
        *("memr1_jax.evals.metrics", "memr1_jax.training.loop.train"),
    ]
    assert above("evals", names) == [
        *("..bank", "experiments.evaluate", "memr1_jax.training.loop.train"),
    ]
    assert above("studies", names) == ["..bank", "experiments.evaluate"]
    assert "memr1_jax.text.words" in above("errors.py", names)


def test_every_folder_has_a_floor_that_the_design_states():
    folders = {path.parent.name for path in (ROOT / "memr1_jax").glob("*/__init__.py")}
    assert folders == set(FLOORS)
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    stated = {}
    for line in design.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and cells[1].isdigit() and "memr1_jax/" in cells[2]:
            for name in cells[2].split(","):
                stated[name.strip(" `").removeprefix("memr1_jax/").rstrip("/")] = int(cells[1])
    assert stated == FLOORS
    assert len(set(FLOORS.values())) == len(FLOORS), "two folders stand on one floor"
