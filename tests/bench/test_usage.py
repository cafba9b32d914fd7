"""Costs by stage, and what became of a question's evidence."""

import pytest

from memr1_jax.bench.systems.protocol import Call, Memory, Reply
from memr1_jax.bench.usage import (
    EvidenceSummary,
    StageUsage,
    find_evidence,
    summarise_evidence,
    total_usage,
    usage_by_stage,
)


def pair(stage, prompt_tokens, tokens, seconds, stopped=True):
    call = Call(stage, (("user", "x"),), max_tokens=8)
    return call, Reply("y", prompt_tokens, tokens, stopped, seconds)


def test_usage_by_stage():
    calls = [pair("manage", 100, 5, 1.0), pair("answer", 50, 8, 0.5, stopped=False)]
    calls += [pair("manage", 10, 2, seconds) for seconds in (2.0, 3.0, 4.0, 5.0)]
    stages = usage_by_stage(calls, searches=[0.1, 0.3])
    assert stages == [
        StageUsage("manage", 5, 140, 13, 0, 3.0, pytest.approx(4.8)),  # 0.95 * 4 = 3.8 places on
        StageUsage("answer", 1, 50, 8, 1, 0.5, 0.5),
        StageUsage("search", 2, 0, 0, 0, pytest.approx(0.2), pytest.approx(0.29)),
    ]
    assert total_usage(stages) == {"calls": 6, "prompt_tokens": 190, "tokens": 21, "cut_off": 1}
    assert usage_by_stage([]) == []
    assert total_usage([]) == {"calls": 0, "prompt_tokens": 0, "tokens": 0, "cut_off": 0}


def memory(*sources):
    return Memory("Kim has a boat.", "May 2023", "Kim", sources)


def test_evidence_is_shown_or_missed_by_search_or_was_never_stored():
    held = [memory("D1:1", "D1:2"), memory("D2:1"), memory()]
    found = find_evidence(["D1:2", "D2:1", "D3:9", "D1:2"], held, held[:1])
    assert found.shown == ("D1:2",)
    assert found.not_retrieved == ("D2:1",)
    assert found.never_stored == ("D3:9",)
    assert found.recall == pytest.approx(1 / 3)
    assert find_evidence(["D3:9"], held, held).never_stored == ("D3:9",)
    assert find_evidence(["D2:1"], held, []).not_retrieved == ("D2:1",)
    # A system that shows what it does not hold, such as whole turns, has shown it.
    assert find_evidence(["D5:1"], [], [memory("D5:1")]).recall == 1
    assert find_evidence([], held, held).recall is None


def test_the_summary_weighs_questions_alike():
    held = [memory("D1:1"), memory("D1:2"), memory("D1:3")]
    found = [
        find_evidence(["D1:1"], held, held),
        find_evidence(["D1:1", "D1:2", "D1:3", "D9:9"], held, held[:1]),
        find_evidence([], held, held),
    ]
    assert summarise_evidence(found) == EvidenceSummary(2, 1, 0.625, 0.25, 0.125, 0.5)
    assert summarise_evidence(found[2:]) == EvidenceSummary(0, 1, None, None, None, None)
