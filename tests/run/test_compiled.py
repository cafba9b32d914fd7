"""The cache of compiled programs: where it lies, and that a second process reads it."""

import os
import subprocess
import sys

import pytest

from memr1_jax.errors import UserError
from memr1_jax.run import compiled

PROGRAM = """
import sys
from memr1_jax.run.compiled import keep_compiled_programs
keep_compiled_programs(sys.argv[1])
import jax
print(jax.config.jax_compilation_cache_dir)
"""


def _place(where, **environment):
    known = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(where)],
        capture_output=True,
        text=True,
        env=known | environment,
        check=True,
    )
    return done.stdout.strip()


def test_it_lies_in_the_cache_folder_by_machine(tmp_path):
    place = _place("auto", MEMR1_CACHE=str(tmp_path))
    assert place == str(tmp_path / "compiled" / compiled._machine())


def test_a_place_in_the_environment_wins_and_none_is_none(tmp_path):
    assert _place("auto", JAX_COMPILATION_CACHE_DIR=str(tmp_path)) == str(tmp_path)
    assert _place("none", MEMR1_CACHE=str(tmp_path)) == "None"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--compilation_cache="):
        compiled.keep_compiled_programs(str(tmp_path / "file"))
