"""Keeps compiled programs on disk, so that a second start need not compile them again."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.options import user_path
from memr1_jax.run.download import cache_folder

AUTO, NONE = "auto", "none"
_FOLDER = "JAX_COMPILATION_CACHE_DIR"
_MOST_BYTES = 4 * 2**30  # the least recently used go first; JAX then locks the folder, too
_FEWEST_SECONDS = 0.3  # programs that compile faster are not worth a file


def keep_compiled_programs(where: str) -> None:
    """Sets JAX's persistent compilation cache, unless the environment has named one.

    Programs for a CPU hold instructions of the processor that they were compiled on, so each kind
    of processor and each version of the compiler has a folder of its own.

    Args:
      where: "auto" for the cache folder, "none" for no cache, or a folder.

    Raises:
      UserError: the folder cannot be made.
    """
    if where == NONE or _FOLDER in os.environ:
        return
    folder = (cache_folder() / "compiled" if where == AUTO else user_path(where)) / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if where == AUTO:
            return  # a home that cannot be written costs time alone
        raise UserError(
            f"--compilation_cache={where} cannot be written ({error.strerror}). Give a folder of"
            f" your own, or {NONE}."
        ) from error
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": _MOST_BYTES,
        "jax_persistent_cache_min_compile_time_secs": _FEWEST_SECONDS,
    }
    if "jax" not in sys.modules:  # JAX reads these when it is imported, which takes its time
        os.environ.update({name.upper(): str(value) for name, value in settings.items()})
        return
    import jax

    for name, value in settings.items():
        jax.config.update(name, value)


@functools.cache
def _machine() -> str:
    """Returns a word for the processor's instructions and the compiler's version."""
    known = [platform.machine(), importlib.metadata.version("jaxlib")]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n")
        known += sorted(
            {line for line in lines if line.startswith(("flags", "Features", "model name"))}
        )
    except OSError:
        known.append(platform.processor())
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]
