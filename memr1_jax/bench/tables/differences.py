"""Compares the rows of a table with one of them, question by question."""

from collections.abc import Mapping, Sequence

from memr1_jax.bench.scoring import ADVERSARIAL, Answered
from memr1_jax.evals.intervals import (
    by_question,
    difference_by_conversations,
    difference_by_questions,
    shared,
)


def differences(
    rows: Mapping[str, Sequence[Answered]], against: str, seed: int = 0
) -> dict[str, dict[str, dict]]:
    """Subtracts the row `against` from each row, by metric, over the questions that both answered.

    Adversarial questions are left out, as in the overall means. An entry has the
    `difference` of the means, `relative` to that of `against` (None where that is 0), the number
    of `questions`, and 95 % bounds `by_question` and `by_conversation` of the difference, from
    pairs that are drawn together. The result is empty where `against` has not been run.
    """
    if against not in rows:
        return {}
    scores = {name: _scores(answered) for name, answered in rows.items()}
    return {
        name: {
            metric: entry
            for metric, values in scores[name].items()
            if (entry := _entry(values, scores[against].get(metric, {}), seed))
        }
        for name in rows
        if name != against
    }


def _scores(answered):
    members = [item for item in answered if item.category != ADVERSARIAL]
    metrics = dict.fromkeys(metric for item in members for metric in item.scores)
    return {metric: by_question(members, metric) for metric in metrics}


def _entry(values, reference, seed):
    values, reference = shared(values, reference)
    if not values:
        return None
    found = difference_by_questions(values, reference, seed=seed)
    whole = difference_by_conversations(values, reference, seed=seed)
    mean = sum(reference.values()) / len(reference)
    return {
        "difference": found.mean,
        "relative": found.mean / mean if mean else None,
        "questions": found.count,
        "by_question": [found.low, found.high],
        "by_conversation": [whole.low, whole.high],
    }
