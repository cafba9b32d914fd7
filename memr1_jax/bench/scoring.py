"""Scores answers by their benchmark's metrics, and gives means with intervals."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from memr1_jax.bench.multiple_choice import score_multiple_choice
from memr1_jax.bench.usage import EvidenceFound
from memr1_jax.data.types import Question
from memr1_jax.evals import intervals
from memr1_jax.evals.metrics import CATEGORIES, score, score_msc
from memr1_jax.text.normalize import normalize_text

ADVERSARIAL = 5
OVERALL = "overall"
_DRAWS = 10_000


@dataclasses.dataclass(frozen=True)
class Answered:
    """One question of a row: how it was answered and scored, and what became of its evidence."""

    conversation: str
    index: int
    id: str
    kind: str
    category: int
    question: str
    gold: str
    response: str
    answer: str
    rule: str  # how the answer was found
    abstain: bool  # whether the right answer is that the dialogue does not say
    scores: dict[str, float]
    evidence: EvidenceFound
    memories: tuple[dict, ...]  # those that were shown
    rubric: tuple[str, ...] = ()  # what a judge looks for, one by one, in place of the gold


def _locomo(answer: str, question: Question, plain_marks: bool) -> dict[str, float]:
    scores = score(answer, question, plain_marks)
    return {name: value for name, value in scores.items() if name != "category"}


def _short(answer: str, question: Question, plain_marks: bool) -> dict[str, float]:
    return score_msc(answer, question.answer, plain_marks)


def _choice(answer: str, question: Question, plain_marks: bool) -> dict[str, float]:
    del plain_marks  # a label has none
    return score_multiple_choice(answer, question.answer)


def _accepted(answer: str, question: Question, plain_marks: bool) -> dict[str, float]:
    right = (question.answer, *question.accepted)
    said = f" {normalize_text(answer, plain_marks)} "
    held = any(f" {normalize_text(gold, plain_marks)} " in said for gold in right)
    scores = [score_msc(answer, gold, plain_marks) for gold in right]
    best = {name: max(row[name] for row in scores) for name in scores[0]}
    return {"contains_answer": float(held), **best}


def score_by_question(
    answer: str, question: Question, plain_marks: bool = False
) -> dict[str, float]:
    """Scores an answer as its question asks, in a data set that mixes kinds of questions.

    Options make it multiple choice, a category LoCoMo's; all others are short free answers.
    """
    metrics = _choice if question.options else _locomo if question.category else _short
    return metrics(answer, question, plain_marks)


# Scores of one answer by variant of a metric; the flag is `plain_marks` of `metrics.score`.
Score = Callable[[str, Question, bool], dict[str, float]]

METRICS: dict[str, Score] = {
    "locomo": _locomo,
    "short": _short,
    "choice": _choice,
    "accepted": _accepted,
    "by_question": score_by_question,
}


def headline(metrics: Iterable[str]) -> str:
    """Returns the metric that a table is sorted and plotted by."""
    metrics = list(metrics)
    preferred = ("judge", "accuracy_personamem_official", "contains_answer", "f1_set_of_words")
    return next((name for name in preferred if name in metrics), metrics[0])


def summarise(answered: Sequence[Answered], seed: int = 0) -> list[dict]:
    """Computes means by group and, last, overall, each with 95 % intervals.

    LoCoMo's groups are its categories, by true name and by the name in the papers' tables; those of
    other data sets are their kinds of question. Overall is the mean over all questions except
    adversarial ones. An entry has `name`, `paper_name`, `count` and `metrics`: by metric the
    `mean`, how many `questions` have it, and bounds `by_question` and, overall, `by_conversation`
    (bootstrap).
    """
    entries = []
    for name, paper_name, members in _groups(answered):
        entries.append(_entry(name, paper_name, members, seed))
    whole = [item for item in answered if item.category != ADVERSARIAL]
    return [*entries, _entry(OVERALL, "Overall", whole, seed)]


def _groups(answered: Sequence[Answered]) -> Iterable[tuple[str, str, list[Answered]]]:
    by_category, by_kind = collections.defaultdict(list), collections.defaultdict(list)
    for item in answered:
        if item.category:
            by_category[item.category].append(item)
        else:
            by_kind[item.kind].append(item)
    for number, names in CATEGORIES.items():
        if number in by_category:
            yield *names, by_category[number]
    for kind, members in sorted(by_kind.items()):
        yield kind or "questions", "", members


def _entry(name: str, paper_name: str, members: Sequence[Answered], seed: int) -> dict:
    metrics = dict.fromkeys(metric for item in members for metric in item.scores)
    return {
        "name": name,
        "paper_name": paper_name,
        "count": len(members),
        "metrics": {
            metric: _means(intervals.by_question(members, metric), name == OVERALL, seed)
            for metric in metrics
        },
    }


def _means(scores: Mapping[intervals.Key, float], overall: bool, seed: int) -> dict:
    options = {"draws": _DRAWS, "seed": seed}
    found = intervals.mean_by_questions(scores, **options)
    entry = {"mean": found.mean, "questions": found.count, "by_question": [found.low, found.high]}
    if overall:
        whole = intervals.mean_by_conversations(scores, **options)
        entry |= {"by_conversation": [whole.low, whole.high], "conversations": whole.groups}
    return entry
