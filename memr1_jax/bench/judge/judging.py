"""Judges the answers of a row; verdicts are asked for once, kept, and reused by the next run."""

import collections
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from memr1_jax.bench.judge.judge_prompts import JudgePrompt, Messages
from memr1_jax.bench.judge.verdicts import (
    RIGHT,
    UNREADABLE,
    Verdict,
    append_verdicts,
    read_reply,
    read_verdicts,
    verdict_key,
)
from memr1_jax.errors import UserError
from memr1_jax.evals.intervals import Interval, Key

NOT_RUN = "not run"


class Judgeable(Protocol):
    """A prediction that can be judged; it has these fields."""

    conversation: str
    index: int
    question: str
    gold: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt for the judge; `name` says in logs which question it is about."""

    name: str
    messages: Messages
    json: bool
    max_tokens: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The judge's reply, or None and what kept it from replying."""

    text: str | None
    seconds: float
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Judge:
    """A judge: `ask` yields one outcome a request, in order, for `batch` requests at a time."""

    model: str
    ask: Callable[[Sequence[Request]], Iterator[Outcome]]
    batch: int


@dataclasses.dataclass(frozen=True)
class Judged:
    """The verdict of each prediction, in order; None where the judge could not be asked."""

    model: str
    keys: tuple[Key, ...]
    verdicts: tuple[Verdict | None, ...]
    asked: int  # requests that were answered in this run, second ones included

    @property
    def unreadable(self) -> int:
        """Questions whose verdict could not be read, asked twice."""
        return sum(map(_is_unreadable, self.verdicts))

    @property
    def failed(self) -> int:
        """Questions on which the judge did not reply; a later run asks them again."""
        return sum(verdict is None for verdict in self.verdicts)

    @property
    def scores(self) -> dict[Key, float]:
        """The share of right verdicts by question: 1 or 0, or between where a rubric was judged.

        Questions with a verdict that is missing or cannot be read are left out.
        """
        found: dict[Key, list[Verdict | None]] = collections.defaultdict(list)
        for key, verdict in zip(self.keys, self.verdicts, strict=True):
            found[key].append(verdict)
        return {
            key: sum(v.verdict == RIGHT for v in verdicts) / len(verdicts)
            for key, verdicts in found.items()
            if all(v is not None and v.verdict != UNREADABLE for v in verdicts)
        }


def judge_rows(
    predictions: Sequence[Judgeable],
    judge: Judge | None,
    cache_path: str | os.PathLike,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    prompt: JudgePrompt | Callable[[Judgeable], JudgePrompt],
) -> Judged | None:
    """Judges predictions, asking only for verdicts that the file `cache_path` lacks.

    A reply that cannot be read is asked for once more, with a reminder; then the verdict is
    unreadable and its score missing. Verdicts are written in the order of the questions, so that a
    run that was killed and started again leaves the file that it would have left.

    Args:
      predictions: one for each question.
      judge: who judges; None gives None, see `judge_cell`.
      cache_path: a file of verdicts, which is made or grows.
      on_progress: told how many predictions have been dealt with, and of how many.
      prompt: for all predictions, or by prediction.

    Raises:
      UserError: the file holds something else, or the judge cannot be reached at all.
    """
    if judge is None:
        return None
    cached = read_verdicts(cache_path)
    _make_folder(Path(cache_path))
    items, pending = [], {}
    for prediction in predictions:
        chosen = prompt if isinstance(prompt, JudgePrompt) else prompt(prediction)
        texts = (prediction.question, prediction.gold, prediction.answer)
        key = verdict_key(judge.model, chosen, *texts)
        items.append(key)
        if key not in cached:
            pending.setdefault(key, (prediction, chosen, chosen.fill(*texts)))
    times = collections.Counter(items)  # equal answers to equal questions share a verdict
    asked, waiting = 0, list(pending.items())
    done = len(items) - sum(times[key] for key in pending)
    on_progress(done, len(items))
    for start in range(0, len(waiting), judge.batch):
        chunk = waiting[start : start + judge.batch]
        for key, verdict in _judge_batch(judge, chunk, cache_path):
            if verdict is not None:
                cached[key] = verdict
                asked += len(verdict.raw)
            done += times[key]
            on_progress(done, len(items))
    keys = tuple((prediction.conversation, prediction.index) for prediction in predictions)
    return Judged(judge.model, keys, tuple(cached.get(key) for key in items), asked)


def _judge_batch(judge, chunk, cache_path) -> Iterator[tuple[str, Verdict | None]]:
    """Yields verdicts by key, each written beforehand; None where there was no reply."""
    first = [_request(prediction, prompt, messages) for _, (prediction, prompt, messages) in chunk]
    held = []  # from the first reply on that must be asked for again
    try:
        for item, outcome in zip(chunk, judge.ask(first), strict=True):
            verdict = _verdict(judge, item, [outcome])
            if held or _is_unreadable(verdict):
                held.append((item, outcome, verdict))
            else:
                yield _keep(cache_path, item[0], verdict)
        again = [
            _request(prediction, prompt, prompt.remind(messages, outcome.text))
            for (_, (prediction, prompt, messages)), outcome, verdict in held
            if _is_unreadable(verdict)
        ]
        second = iter(list(judge.ask(again)) if again else [])
    except UserError:  # the judge is gone; its replies so far are kept, though out of order
        for item, _, verdict in held:
            if not _is_unreadable(verdict):
                _keep(cache_path, item[0], verdict)
        raise
    for item, outcome, verdict in held:
        if _is_unreadable(verdict):
            verdict = _verdict(judge, item, [outcome, next(second)])
        yield _keep(cache_path, item[0], verdict)


def _is_unreadable(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.verdict == UNREADABLE


def _request(prediction, prompt, messages):
    name = f"{prediction.conversation}/{prediction.index}"
    return Request(name, messages, prompt.json, prompt.max_tokens)


def _verdict(judge, item, outcomes) -> Verdict | None:
    key, (prediction, prompt, _) = item
    if outcomes[-1].text is None:
        return None
    return Verdict(
        conversation=prediction.conversation,
        index=prediction.index,
        judge=judge.model,
        prompt=prompt.name,
        prompt_sha256=prompt.digest,
        key=key,
        verdict=read_reply(outcomes[-1].text, prompt),
        raw=tuple(outcome.text for outcome in outcomes),
        seconds=round(sum(outcome.seconds for outcome in outcomes), 3),
    )


def _keep(cache_path, key, verdict):
    if verdict is not None:
        append_verdicts(cache_path, [verdict])
    return key, verdict


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise UserError(
            f"The file of verdicts {path} cannot be written ({error.strerror or error}). Name a"
            " file in a folder in which you may create files."
        ) from error


def judge_cell(judged: Judged | None, interval: Interval | None = None) -> str:
    """Formats the table's cell: percent of right answers and what is missing, or "not run".

    Args:
      judged: from `judge_rows`; None where no judge was configured.
      interval: of `judged.scores`, to be printed next to the mean.
    """
    if judged is None:
        return NOT_RUN
    scores = judged.scores
    if not scores:
        return f"– (0 of {len(judged.keys)} judged)"
    cell = f"{100 * sum(scores.values()) / len(scores):.2f}"
    if interval is not None and interval.low is not None:
        cell += f" [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
    missing = [
        f"{count} {what}"
        for count, what in ((judged.unreadable, "unreadable"), (judged.failed, "failed"))
        if count
    ]
    return cell + (f" ({', '.join(missing)})" if missing else "")
