"""What an installation brings: three top-level names, all data files, and the command `memr1`."""

import importlib
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

from experiments.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOOL = PROJECT["tool"]["setuptools"]
FOUND = find_packages(str(ROOT), include=TOOL["packages"]["find"]["include"])


def test_only_these_names_are_installed():
    tops = {name for name in FOUND if "." not in name}
    assert tops == {"memr1_jax", "experiments", "tpu_scripts"}
    assert {ROOT / name.replace(".", "/") for name in FOUND} == {
        path.parent for top in tops for path in (ROOT / top).rglob("__init__.py")
    }


def test_all_data_files_are_installed():
    packaged = {
        path
        for package, patterns in TOOL["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    there = {
        path
        for top in ("memr1_jax", "experiments")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    assert there == packaged


def test_the_command_lists_what_it_does(capsys):
    assert PROJECT["project"]["scripts"] == {"memr1": f"{main.__module__}:main"}
    for argv in (["memr1"], ["memr1", "--help"]):
        main(argv)
        told = capsys.readouterr().out
        assert all(f"  {name} " in told and about in told for name, (_, about) in COMMANDS.items())
    for module, _ in COMMANDS.values():
        assert callable(importlib.import_module(module).command)


def test_the_command_hands_over_what_follows_its_name(monkeypatch):
    given = []
    monkeypatch.setattr("experiments.report.command", given.append)
    main(["memr1", "report", "--output=here"])
    assert given == [["memr1 report", "--output=here"]]


def test_an_unknown_command_is_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["memr1", "trian"])
    assert ended.value.code == 2
    assert "memr1 has no command 'trian'" in capsys.readouterr().err
