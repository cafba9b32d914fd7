"""Scores of an answer against its gold, each under the name of its variant.

Papers on LoCoMo mean different things by "F1"; no two variants here agree. `normalize_text` is
SQuAD's rule, which the reward uses too.
"""

import collections
import functools
import re
import string
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from memr1_jax.data.types import Question
from memr1_jax.run.markdown import markdown_table
from memr1_jax.text.normalize import normalize_text

if TYPE_CHECKING:
    from rich.table import Table

METRICS = ("f1_set_of_words", "bleu1_method1", "exact_match", "f1_squad", "f1_locomo_official")

# True name and the name in mem0's and Memory-R1's tables, in the order of those tables' columns.
CATEGORIES = {
    1: ("multi-hop", "Single Hop"),
    3: ("open-domain", "Multi-Hop"),
    4: ("single-hop", "Open Domain"),
    2: ("temporal", "Temporal"),
    5: ("adversarial", "dropped"),
    0: ("without category", "–"),  # of data sets other than LoCoMo
}

_ABSTENTIONS = ("no information available", "not mentioned")
_LOCOMO_DROPPED = re.compile(r"\b(a|an|the|and)\b")
_ROUGE_WORD = re.compile(r"[a-z0-9]+")


def f1_set_of_words(prediction: str, gold: str) -> float:
    """Returns the headline F1 of mem0 (arXiv 2504.19413) and Memory-R1, in [0, 1].

    Texts are lower-cased, `. , ! ?` become spaces, and the sets of words are compared.
    """
    first, second = (
        set(re.sub(r"[.,!?]", " ", text.lower()).split()) for text in (prediction, gold)
    )
    return _f1(len(first & second), len(first), len(second))


def bleu1(prediction: str, gold: str) -> float:
    """Returns BLEU-1 as mem0 and Memory-R1 compute it, in [0, 1].

    NLTK's `sentence_bleu` with smoothing method 1 on lower-cased `word_tokenize` tokens. With
    `preserve_line=True` no sentence splitter needs downloading; this differs only for predictions
    of several sentences, where an inner "word." keeps its dot.
    """
    from nltk.tokenize import word_tokenize
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    first, second = (
        word_tokenize(text.strip().lower(), preserve_line=True) for text in (prediction, gold)
    )
    if not first or not second:
        return 0.0
    smoothing = SmoothingFunction().method1
    weights = (1, 0, 0, 0)
    return float(sentence_bleu([second], first, weights, smoothing_function=smoothing))


def exact_match(prediction: str, gold: str, plain_marks: bool = False) -> float:
    """Returns 1 if both are equal under SQuAD's normalisation (arXiv 1606.05250), else 0.

    An empty answer scores 0. With `plain_marks` typographic marks equal ASCII ones, as in the
    reward.
    """
    first, second = (normalize_text(text, plain_marks) for text in (prediction, gold))
    return float(first == second and first != "")


def f1_squad(prediction: str, gold: str, plain_marks: bool = False) -> float:
    """Returns SQuAD's F1 (arXiv 1606.05250), in [0, 1]: multisets of normalised words.

    As for `exact_match`, an empty answer scores 0, and marks may equal ASCII ones.
    """
    first, second = (normalize_text(text, plain_marks).split() for text in (prediction, gold))
    return _multiset_f1(first, second)


def rouge_l(prediction: str, gold: str) -> tuple[float, float]:
    """Returns recall and F1 of ROUGE-L, both in [0, 1].

    The sentence-level form, as the package rouge_score computes it without a stemmer: the longest
    common subsequence of the runs of a-z and 0-9 in the lower-cased texts. The recall divides its
    length by the gold's, so that a long answer is not punished.
    """
    first, second = (_ROUGE_WORD.findall(text.lower()) for text in (prediction, gold))
    common = _longest_common_subsequence(first, second)
    recall = common / len(second) if second else 0.0
    return recall, _f1(common, len(first), len(second))


def f1_locomo_official(prediction: str, gold: str, category: int) -> float:
    """Returns the score of LoCoMo's own evaluation (arXiv 2402.17753), in [0, 1].

    F1 on multisets of Porter stems; the mean over comma-separated parts in category 1; the gold
    up to its first semicolon in category 3; whether the prediction abstains in category 5.
    """
    if category == 5:
        return float(any(phrase in prediction.lower() for phrase in _ABSTENTIONS))
    if category == 1:
        parts = prediction.split(",")
        best = [max(_stemmed_f1(part, wanted) for part in parts) for wanted in gold.split(",")]
        return sum(best) / len(best)
    return _stemmed_f1(prediction, gold.split(";")[0] if category == 3 else gold)


def score(prediction: str, question: Question, plain_marks: bool = False) -> dict[str, float]:
    """Returns every variant in `METRICS` for one answer, and its `category`.

    With `plain_marks` typographic marks equal ASCII ones in exact match and in SQuAD's F1; the
    other variants are as published. Category 5 has no gold, so only the official score applies.
    """
    gold, category = question.answer, question.category
    row = {"category": category}
    if category != 5:
        row["f1_set_of_words"] = f1_set_of_words(prediction, gold)
        row["bleu1_method1"] = bleu1(prediction, gold)
        row["exact_match"] = exact_match(prediction, gold, plain_marks)
        row["f1_squad"] = f1_squad(prediction, gold, plain_marks)
    row["f1_locomo_official"] = f1_locomo_official(prediction, gold, category)
    return row


def score_msc(prediction: str, gold: str, plain_marks: bool = False) -> dict[str, float]:
    """Returns the scores of one answer to a question of MSC-Self-Instruct, each by its variant.

    `rouge_l_recall` is what MemGPT (arXiv 2310.08560) reports, the others are Memory-R1's and
    SQuAD's; `plain_marks` as in `score`.
    """
    recall, f1 = rouge_l(prediction, gold)
    return {
        "f1_set_of_words": f1_set_of_words(prediction, gold),
        "bleu1_method1": bleu1(prediction, gold),
        "exact_match": exact_match(prediction, gold, plain_marks),
        "f1_squad": f1_squad(prediction, gold, plain_marks),
        "rouge_l_recall": recall,
        "rouge_l_f1": f1,
    }


def aggregate(rows: Iterable[Mapping[str, float]], *, adversarial: bool = False) -> list[dict]:
    """Returns the means of rows with a `category`, by category and overall.

    Every other key counts as a metric, so a judge's verdict may be added to the rows of `score`.
    Each entry has `category`, `name`, `paper_name`, `count` and the mean of each metric, None where
    a row lacks it. The last entry is the mean over all questions but adversarial ones, so
    categories are weighted by their size; its category is None.

    Args:
      rows: one for each question.
      adversarial: whether the last entry but one is the mean over all five categories, as in
        LoCoMo's own evaluation; only metrics that adversarial questions have are in it.
    """
    rows = list(rows)
    by_category = collections.defaultdict(list)
    for row in rows:
        by_category[row["category"]].append(row)
    keys = (key for members in by_category.values() for row in members for key in row)
    metrics = [key for key in dict.fromkeys(keys) if key != "category"]
    groups = [(number, *CATEGORIES[number], by_category.get(number, [])) for number in CATEGORIES]
    answered = [row for number in (0, 1, 2, 3, 4) for row in by_category.get(number, [])]
    if adversarial:
        groups.append((None, "overall with adversarial", "–", rows))
    groups.append((None, "overall", "Overall", answered))
    return [
        {"category": number, "name": name, "paper_name": paper_name, "count": len(members)}
        | {metric: _mean([row.get(metric) for row in members]) for metric in metrics}
        for number, name, paper_name, members in groups
        if members or number is None
    ]


def results_table(entries: Iterable[Mapping]) -> "Table":
    """Returns the entries of `aggregate` as a table for the terminal, scores in percent."""
    from rich.table import Table

    header, lines = _cells(entries)
    table = Table()
    for index, column in enumerate(header):
        table.add_column(column, justify="left" if index < 2 else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def results_markdown(entries: Iterable[Mapping]) -> str:
    """Returns the entries of `aggregate` as a Markdown table, scores in percent."""
    header, lines = _cells(entries)
    return markdown_table(header, lines, labels=2) + "\n"


def _cells(entries: Iterable[Mapping]) -> tuple[list[str], list[list[str]]]:
    entries = list(entries)
    fixed = ("category", "name", "paper_name", "count")
    metrics = [key for key in entries[0] if key not in fixed]
    lines = []
    for entry in entries:
        number = "" if entry["category"] is None else f"{entry['category']} "
        values = ["–" if entry[key] is None else f"{100 * entry[key]:.2f}" for key in metrics]
        lines.append([number + entry["name"], entry["paper_name"], str(entry["count"]), *values])
    return ["category", "name in Memory-R1", "questions", *metrics], lines


def _mean(values: list[float | None]) -> float | None:
    return sum(values) / len(values) if values and None not in values else None


def _f1(overlap: int, predicted: int, wanted: int) -> float:
    return 2 * overlap / (predicted + wanted) if overlap else 0.0


def _stemmed_f1(prediction: str, gold: str) -> float:
    return _multiset_f1(_stems(prediction), _stems(gold))


def _multiset_f1(first: list[str], second: list[str]) -> float:
    overlap = (collections.Counter(first) & collections.Counter(second)).total()
    return _f1(overlap, len(first), len(second))


def _longest_common_subsequence(first: list[str], second: list[str]) -> int:
    lengths = [0] * (len(second) + 1)  # of the words of `first` so far with each start of `second`
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            above = lengths[place]
            lengths[place] = diagonal + 1 if word == other else max(above, lengths[place - 1])
            diagonal = above
    return lengths[-1]


def _stems(text: str) -> list[str]:
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return [_stem(word) for word in _LOCOMO_DROPPED.sub(" ", kept).split()]


@functools.cache
def _stemmer():
    from nltk.stem import PorterStemmer

    return PorterStemmer()


@functools.lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    return _stemmer().stem(word)
