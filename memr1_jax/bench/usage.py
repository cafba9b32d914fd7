"""Measures what a row of a table cost, and where its memories failed."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from memr1_jax.bench.systems.protocol import Call, Memory, Reply

SEARCH = "search"


@dataclasses.dataclass(frozen=True)
class StageUsage:
    """Calls of one stage; latencies in seconds, by linear interpolation between calls.

    The latency of a call is that of the batch it was part of, so the latencies of a stage do not
    add up to the time that it took.
    """

    stage: str
    calls: int
    prompt_tokens: int
    tokens: int  # generated
    cut_off: int  # replies that reached their limit of tokens
    p50: float
    p95: float


def usage_by_stage(
    calls: Iterable[tuple[Call, Reply]], searches: Sequence[float] = ()
) -> list[StageUsage]:
    """Sums up each stage, in the order in which stages first appear.

    Args:
      calls: every call with its reply.
      searches: seconds of each search for memories; where there are any, the last entry is the
        stage "search", which has no tokens.
    """
    replies = collections.defaultdict(list)
    for call, reply in calls:
        replies[call.stage].append(reply)
    stages = [
        StageUsage(
            stage,
            len(found),
            sum(reply.prompt_tokens for reply in found),
            sum(reply.tokens for reply in found),
            sum(not reply.stopped for reply in found),
            *_percentiles([reply.seconds for reply in found]),
        )
        for stage, found in replies.items()
    ]
    if searches:
        stages.append(StageUsage(SEARCH, len(searches), 0, 0, 0, *_percentiles(searches)))
    return stages


def total_usage(stages: Iterable[StageUsage]) -> dict[str, int]:
    """Counts language-model calls and tokens over all stages."""
    asked = [stage for stage in stages if stage.stage != SEARCH]
    fields = ("calls", "prompt_tokens", "tokens", "cut_off")
    return {field: sum(getattr(stage, field) for stage in asked) for field in fields}


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    middle, late = np.percentile(np.asarray(seconds, np.float64), (50, 95))
    return float(middle), float(late)


@dataclasses.dataclass(frozen=True)
class EvidenceFound:
    """Ids of a question's evidence turns by what became of them; each is in one of the three."""

    shown: tuple[str, ...]  # a memory that was shown to the answerer names it
    not_retrieved: tuple[str, ...]  # a memory that is held names it, none that was shown
    never_stored: tuple[str, ...]  # no memory names it

    @property
    def recall(self) -> float | None:
        """Share of the evidence that was shown; None for a question without evidence."""
        total = len(self.shown) + len(self.not_retrieved) + len(self.never_stored)
        return len(self.shown) / total if total else None


def find_evidence(
    evidence: Iterable[str], held: Iterable[Memory], shown: Iterable[Memory]
) -> EvidenceFound:
    """Tells what became of one question's evidence turns.

    Args:
      evidence: their ids; repeated ones count once.
      held: all memories when the question was asked.
      shown: those that the answerer saw.
    """
    stored, seen = (
        {source for memory in memories for source in memory.sources} for memories in (held, shown)
    )
    ids = list(dict.fromkeys(evidence))
    missed = [turn for turn in ids if turn not in seen]
    return EvidenceFound(
        shown=tuple(turn for turn in ids if turn in seen),
        not_retrieved=tuple(turn for turn in missed if turn in stored),
        never_stored=tuple(turn for turn in missed if turn not in stored),
    )


@dataclasses.dataclass(frozen=True)
class EvidenceSummary:
    """Means over the questions that have evidence; all but the counts are None without any.

    `recall`, `not_retrieved` and `never_stored` are means of each question's shares and add up to
    1; `complete` is the share of questions whose evidence was shown in full. `without_evidence`
    questions are left out. LoCoMo's own script counts those as fully recalled.
    """

    questions: int
    without_evidence: int
    recall: float | None
    not_retrieved: float | None
    never_stored: float | None
    complete: float | None


def summarise_evidence(found: Iterable[EvidenceFound]) -> EvidenceSummary:
    """Summarises evidence over questions."""
    found = list(found)
    rows = np.array(
        [
            [len(one.shown), len(one.not_retrieved), len(one.never_stored)]
            for one in found
            if one.recall is not None
        ],
        np.float64,
    )
    without = len(found) - len(rows)
    if not len(rows):
        return EvidenceSummary(0, without, None, None, None, None)
    shares = rows / rows.sum(axis=1, keepdims=True)
    recall, not_retrieved, never_stored = map(float, shares.mean(axis=0))
    complete = float((rows[:, 1:].sum(axis=1) == 0).mean())
    return EvidenceSummary(len(rows), without, recall, not_retrieved, never_stored, complete)
