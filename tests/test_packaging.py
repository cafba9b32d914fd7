"""An installation: three top-level names, all data files, and the command `memr1`."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import setuptools
from setuptools import find_packages

from experiments.__main__ import COMMANDS, main
from memr1_jax.errors import UserError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOOL = PROJECT["tool"]["setuptools"]
TOPS = ("memr1_jax", "experiments", "tpu_scripts")
FOUND = find_packages(str(ROOT), include=TOOL["packages"]["find"]["include"])


def test_only_these_names_are_installed():
    tops = {name for name in FOUND if "." not in name}
    assert tops == set(TOPS)
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
        for top in TOPS
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    assert there == packaged


def test_the_wheel_holds_the_code_and_all_data_files(tmp_path):
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("setuptools below 77 does not know the metadata of the licence")
    hidden = shutil.ignore_patterns("__pycache__", "*.egg-info")
    source = tmp_path / "source"  # as building leaves its folders behind
    for top in TOPS:
        shutil.copytree(ROOT / top, source / top, ignore=hidden)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet")
    subprocess.run([*build, f"--wheel-dir={tmp_path}", source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        str(path.relative_to(source))
        for top in TOPS
        for path in (source / top).rglob("*")
        if path.is_file() and path.suffix != ".md"
    }
    assert held == there


def _needed(extra=None):
    project = PROJECT["project"]
    listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {re.match(r"[\w-]+", line).group() for line in listed}


def test_the_core_needs_no_library_of_an_extra():
    for extra in ("datasets", "service"):
        assert not _needed() & _needed(extra)


def test_the_service_says_what_to_install(monkeypatch, capsys):
    found = importlib.util.find_spec
    hidden = lambda name, *package: None if name == "sqlalchemy" else found(name, *package)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    monkeypatch.delitem(sys.modules, "memr1_jax.service", raising=False)
    for module in [name for name in sys.modules if name.startswith("memr1_jax.service.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(UserError, match=r'pip install "memr1_jax\[service\]"'):
        importlib.import_module("memr1_jax.service")
    with pytest.raises(SystemExit) as ended:
        main(["memr1", "memory", "list"])
    assert ended.value.code == 2 and 'pip install "memr1_jax[service]"' in capsys.readouterr().err


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
