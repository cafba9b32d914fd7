"""The calls of many generators form one batch a round, and answers come back to who asked."""

import pytest

from memr1_jax.bench.systems.protocol import Call, Reply, together


def call(text: str) -> Call:
    return Call("answer", (("user", text),), max_tokens=4)


def reply_upper(calls):
    return [Reply(c.messages[-1][1].upper(), 1, 1, True, 0.0) for c in calls]


def asks(*rounds: list[str]):
    heard = []
    for texts in rounds:
        replies = yield [call(text) for text in texts]
        heard += [reply.text for reply in replies]
    return heard


def test_rounds_are_batched_and_results_keep_their_order():
    batches = []

    def run(calls):
        batches.append([c.messages[-1][1] for c in calls])
        return reply_upper(calls)

    steps = [asks(["a"], ["b", "c"]), asks(), asks(["d", "e"])]
    assert together(steps, run) == [["A", "B", "C"], [], ["D", "E"]]
    assert batches == [["a", "d", "e"], ["b", "c"]]


def test_progress_counts_finished_generators():
    seen = []
    together([asks(["a"]), asks()], reply_upper, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_an_error_in_one_generator_is_not_swallowed():
    def breaks():
        yield [call("x")]
        raise ValueError("broken store")

    with pytest.raises(ValueError, match="broken store"):
        together([breaks(), asks(["a"], ["b"])], reply_upper)
