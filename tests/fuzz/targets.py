"""All targets, on files in a temporary folder."""

import contextlib
import json
import random
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from .data_files import DATA, check, odd_questions
from .driver import Target, single
from .flags import flag_targets
from .model_files import MODELS
from .mutate import changed, damaged, damaged_bytes
from .prompts import prompt_targets
from .record_files import RECORDS, read_reply_of_a_model
from .responses import document
from .texts import text_targets

FILES = {**RECORDS, **MODELS}


@contextlib.contextmanager
def all_targets(wanted: Collection[str] = ()) -> Iterator[list[Target]]:
    """Yields the wanted targets, or all; the folder with their files is removed afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [
            Target("replies", _reply, single(read_reply_of_a_model)),
            *text_targets(),
            *prompt_targets(),
            *flag_targets(folder),
        ]
        names = [*DATA, *FILES, *(target.name for target in made)]
        if unknown := set(wanted) - set(names):
            raise SystemExit(f"There is no target {min(unknown)} among {', '.join(names)}.")
        chosen = [name for name in names if not wanted or name in wanted]
        yield [
            *(_data(name, folder) for name in DATA if name in chosen),
            *(_files(name, folder, FILES[name]) for name in FILES if name in chosen),
            *(target for target in made if target.name in chosen),
        ]


def _reply(rng: random.Random) -> str:
    return document(rng, 2000).decode("utf-8", "replace")


def _data(name: str, folder: Path) -> Target:
    folder = folder / name
    folder.mkdir()
    path, value = folder / "data.json", DATA[name][1]

    def make(rng):
        if isinstance(value, str):
            return damaged(odd_questions(rng), rng) if rng.random() < 0.5 else odd_questions(rng)
        found = changed(value, rng)
        lines = isinstance(found, list) and found and rng.random() < 0.3
        text = "\n".join(map(json.dumps, found)) if lines else json.dumps(found)
        return damaged(text, rng) if rng.random() < 0.3 else text

    def read(text):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        check(name, path)

    return Target(name, make, single(read))


def _files(name: str, folder: Path, what) -> Target:
    """Makes a target of a folder of files; one is damaged at a time."""
    write, read, names = what
    folder = folder / name
    folder.mkdir()
    write(folder)
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    read(folder)

    def make(rng):
        return (file := rng.choice(names)), _damaged(whole[folder / file], file, rng)

    def try_one(case):
        file, data = case
        (folder / file).write_bytes(data)
        try:
            read(folder)
        finally:
            for path in set(folder.rglob("*")) - whole.keys():
                if path.is_file():
                    path.unlink()
            for path, data in whole.items():
                if path.read_bytes() != data:
                    path.write_bytes(data)

    return Target(name, make, single(try_one))


def _damaged(data: bytes, name: str, rng) -> bytes:
    """Damages a file as what it is: JSON, lines of JSON, safetensors, or bytes."""
    if rng.random() < 0.3:
        return damaged_bytes(data, rng)
    if name.endswith(".safetensors"):
        size = int.from_bytes(data[:8], "little")
        header = json.dumps(changed(json.loads(data[8 : 8 + size]), rng)).encode()
        return len(header).to_bytes(8, "little") + header + data[8 + size :]
    if name.endswith(".json"):
        text = json.dumps(changed(json.loads(data), rng))
    elif name.endswith(".jsonl"):
        lines = [json.loads(line) for line in data.decode().splitlines()]
        text = "".join(json.dumps(line) + "\n" for line in changed(lines, rng))
    else:
        return damaged(data.decode("utf-8", "replace"), rng).encode("utf-8", "surrogatepass")
    text = damaged(text, rng) if rng.random() < 0.3 else text
    return text.encode("utf-8", "surrogatepass")
