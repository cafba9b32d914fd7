"""Gives targets inputs by number, and counts what becomes of them."""

import collections
import contextlib
import dataclasses
import enum
import functools
import random
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from memr1_jax.errors import UserError

LONGEST = 60  # seconds that one call may take
_SHOWN = 3  # faults of a target that are told in full


class Outcome(enum.Enum):
    """Says what became of an input; the last three are faults."""

    REFUSED = "refused with a sentence"
    ACCEPTED = "accepted"
    TRACEBACK = "tracebacks"
    WRONG = "wrong edits"
    FORGED = "structure forged"


FAULTS = (Outcome.TRACEBACK, Outcome.WRONG, Outcome.FORGED)
Verdict = tuple[Outcome, str]  # with what a person must know of a fault
ACCEPTED: Verdict = (Outcome.ACCEPTED, "")


class Wrong(Exception):
    """Raised by a target whose result is not the right one."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One reader of inputs.

    Attributes:
      make: makes an input from a random generator.
      judge: says what becomes of inputs, as many as `batch`; other inputs do not change a verdict.
      batch: how many inputs are given at a time.
    """

    name: str
    make: Callable[[random.Random], Any]
    judge: Callable[[Sequence[Any]], list[Verdict]]
    batch: int = 50


@dataclasses.dataclass
class Tally:
    """Counts of one target."""

    inputs: int = 0
    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: list[str] = dataclasses.field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether there was a fault."""
        return any(self.outcomes[outcome] for outcome in FAULTS)


def single(try_one: Callable[[Any], None]) -> Callable[[Sequence[Any]], list[Verdict]]:
    """Makes a judge of a function that takes one input and raises what is wrong with it."""

    def judge(cases: Sequence[Any]) -> list[Verdict]:
        return [_judged(try_one, case) for case in cases]

    return judge


def equal(found: Any, wanted: Any, what: Any, outcome: Outcome = Outcome.WRONG) -> Verdict:
    """Compares a result with the right one."""
    if found == wanted:
        return ACCEPTED
    return outcome, f"{what!r:.2000}\n  is {found!r:.2000}\n  and should be {wanted!r:.2000}"


def run(
    target: Target, tally: Tally, seed: int, start: int, count: int, deadline: float = float("inf")
) -> None:
    """Gives a target the inputs `start` to `start + count`, unless time is over before."""
    for first in range(start, start + count, target.batch):
        if time.monotonic() >= deadline:
            return
        numbers = range(first, min(first + target.batch, start + count))
        cases = [target.make(random.Random(f"{target.name} {seed} {n}")) for n in numbers]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verdicts = _judged_batch(target, cases)
        tally.inputs += len(cases)
        for number, (outcome, detail) in zip(numbers, verdicts, strict=True):
            tally.outcomes[outcome] += 1
            if outcome in FAULTS and len(tally.faults) < _SHOWN:
                told = f"{target.name}, seed {seed}, number {number}: {outcome.value}: {detail}"
                tally.faults.append(told)


def run_all(
    targets: Sequence[Target], seed: int, minutes: float, start: int = 0, count: int = 0
) -> dict[str, Tally]:
    """Runs all targets in turn for some minutes, or for `count` inputs each."""
    tallies = {target.name: Tally() for target in targets}
    if count:
        for target in targets:
            run(target, tallies[target.name], seed, start, count)
        return tallies
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        share = min(max((end - time.monotonic()) / len(targets) / 4, 0.5), 5.0)
        for target in targets:
            tally = tallies[target.name]
            deadline = min(time.monotonic() + share, end)
            run(target, tally, seed, start + tally.inputs, 1_000_000, deadline)
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """Lists the counts, with their sums."""
    total = Tally(sum(t.inputs for t in tallies.values()))
    for tally in tallies.values():
        total.outcomes += tally.outcomes
    header = f"{'target':28}{'inputs':>9}"
    lines = [header + "".join(f"{outcome.value:>25}" for outcome in Outcome)]
    for name, tally in {**tallies, "all": total}.items():
        counts = "".join(f"{tally.outcomes[outcome]:>25,}" for outcome in Outcome)
        lines.append(f"{name:28}{tally.inputs:>9,}{counts}")
    return "\n".join(lines)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_):
        raise TimeoutError(f"it takes more than {LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _judged(try_one, case) -> Verdict:
    try:
        with _time_limit():
            try_one(case)
    except UserError as error:
        return _sentence(error)
    except Wrong as error:
        return Outcome.WRONG, f"{error} for {case!r:.2000}"
    except Exception:
        return Outcome.TRACEBACK, f"{case!r:.2000}\n{traceback.format_exc(limit=-4)}"
    return ACCEPTED


def _judged_batch(target: Target, cases: Sequence[Any]) -> list[Verdict]:
    try:
        return target.judge(cases)
    except Exception:
        if len(cases) > 1:  # which of them is it?
            return [_judged_batch(target, [case])[0] for case in cases]
        return [(Outcome.TRACEBACK, f"{cases[0]!r:.2000}\n{traceback.format_exc(limit=-4)}")]


def _sentence(error: UserError) -> Verdict:
    """Accepts the message of a refusal, if it says something and is no longer than some pages."""
    message = str(error)
    if not message.strip() or len(message) > 20_000:
        return Outcome.TRACEBACK, f"a message of {len(message)} characters: {message!r:.500}"
    return Outcome.REFUSED, ""


def padded(judge: Callable[[Sequence[Any]], list[Verdict]], batch: int):
    """Repeats the last input of a smaller batch, so that one compiled program serves all."""

    @functools.wraps(judge)
    def judged(cases: Sequence[Any]) -> list[Verdict]:
        full = [*cases, *[cases[-1]] * (batch - len(cases))]
        return judge(full)[: len(cases)]

    return judged
