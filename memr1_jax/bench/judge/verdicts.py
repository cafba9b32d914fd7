"""Verdicts: read from what a judge wrote, and kept in a file that is the cache of judging.

The file has one JSON object a line, in the order of the questions. It only grows; a line that was
cut off by a kill is taken away before the next one is written, and several runs may share it.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from memr1_jax.bench.judge.judge_prompts import JudgePrompt
from memr1_jax.errors import UserError
from memr1_jax.run.files import DAMAGE, append_whole
from memr1_jax.run.json_files import json_line, loads
from memr1_jax.run.typed_records import typed

RIGHT, WRONG, UNREADABLE = "right", "wrong", "unreadable"

_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)
_FIRST_WORD = re.compile(r"[\W_]*(?:(?:answer|verdict)\W+)?([a-z]+)", re.IGNORECASE)
_BROKEN_LABEL = re.compile(r'"label"\s*:\s*"\s*(\w+)\s*"', re.IGNORECASE)
_DENIAL = re.compile(r"(?:\b(?:not|never)|n['’]t)\W+$", re.IGNORECASE)
_LINE_START = b'{"conversation": '


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A judge's verdict on one answer; `key` is the digest of all that it depends on."""

    conversation: str
    index: int
    judge: str  # the model
    prompt: str
    prompt_sha256: str
    key: str
    verdict: str  # RIGHT, WRONG or UNREADABLE
    raw: tuple[str, ...]  # every reply of the judge; the last one was read
    seconds: float


def verdict_key(model: str, prompt: JudgePrompt, question: str, gold: str, answer: str) -> str:
    """Returns the digest under which a verdict is found again."""
    parts = json.dumps([model, prompt.digest, question, gold, answer])
    return hashlib.sha256(parts.encode()).hexdigest()


def read_reply(reply: str, prompt: JudgePrompt) -> str:
    """Reads a verdict from a judge's reply: RIGHT, WRONG, or UNREADABLE where it is not clear.

    A label in JSON counts first, even where the JSON is broken elsewhere. Where JSON was asked for
    and there is none, one of the two words counts, in capitals, without the other and without a
    "not"; where a word was asked for, the first word. A reply of one word may be in any case.
    """
    if "<think>" in reply and "</think>" not in reply:
        return UNREADABLE  # cut off before it came to a verdict
    reply = _THOUGHT.sub("", reply)
    words = {prompt.right.lower(): RIGHT, prompt.wrong.lower(): WRONG}
    labels = set(_labels(reply)) or {label.lower() for label in _BROKEN_LABEL.findall(reply)}
    if labels:
        return words.get(labels.pop(), UNREADABLE) if len(labels) == 1 else UNREADABLE
    bare = reply.strip(" \t\r\n.!*_`\"'").lower()
    if bare in words:
        return words[bare]
    if prompt.json:
        return _named(reply, prompt) if "{" not in reply else UNREADABLE
    first = _FIRST_WORD.match(reply)
    return words.get(first[1].lower(), UNREADABLE) if first else UNREADABLE


def _labels(reply: str) -> Iterator[str]:
    """Yields the values of "label" in all JSON objects of a text, in lower case."""
    decoder, start = json.JSONDecoder(), reply.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(reply, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            for name, label in value.items():
                if name.strip().lower() == "label":
                    yield str(label).strip().lower()
        start = reply.find("{", end)


def _named(reply: str, prompt: JudgePrompt) -> str:
    found = {
        verdict: list(re.finditer(rf"\b{word}\b", reply))
        for word, verdict in ((prompt.right, RIGHT), (prompt.wrong, WRONG))
    }
    named = [verdict for verdict, places in found.items() if places]
    if len(named) != 1 or any(_DENIAL.search(reply[: p.start()]) for p in found[named[0]]):
        return UNREADABLE
    return named[0]


def read_verdicts(path: str | os.PathLike) -> dict[str, Verdict]:
    """Reads the verdicts of a file by key; none where there is no file.

    A last line without its end is left out.

    Raises:
      UserError: a line is no verdict, or the rest of one.
    """
    path = Path(path)
    if not path.exists():
        return {}
    *lines, rest = path.read_bytes().split(b"\n")
    if not _LINE_START.startswith(rest.strip(b"\0")[: len(_LINE_START)]):
        lines.append(rest)  # not a line that a kill cut off
    found = {}
    for number, line in enumerate(lines, 1):
        try:
            verdict = _verdict(loads(line))
        except DAMAGE as error:
            raise UserError(
                f"Line {number} of {path} is not a verdict of a judge. Remove the line, or name"
                " another file for the verdicts."
            ) from error
        found[verdict.key] = verdict
    return found


def _verdict(fields: dict) -> Verdict:
    """Checks the verdict of a line; ValueError where a value cannot have been written."""
    verdict = typed(Verdict, fields)
    known = verdict.verdict in (RIGHT, WRONG, UNREADABLE)
    if not (known and re.fullmatch("[0-9a-f]{64}", verdict.key)):
        raise ValueError("a value that no verdict has")
    return verdict


def append_verdicts(path: str | os.PathLike, verdicts: Sequence[Verdict]) -> None:
    """Adds lines to a file of verdicts, after removing a last line that a kill cut off."""
    data = "".join(json_line(dataclasses.asdict(verdict)) for verdict in verdicts).encode()
    with open(path, "a+b", buffering=0) as file, _locked(file):
        _cut_half_line(file)
        append_whole(file, data)


def _cut_half_line(file) -> None:
    end = file.seek(0, os.SEEK_END)
    step = 1 << 16
    for start in range(end - 1, -1, -step):
        low = max(0, start + 1 - step)
        file.seek(low)
        place = file.read(start + 1 - low).rfind(b"\n")
        if place >= 0:
            end = low + place + 1
            break
    else:
        end = 0
    file.truncate(end)


@contextlib.contextmanager
def _locked(file) -> Iterator[None]:
    """Keeps other runs from writing, where the system can."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
