"""Measures how varied the wording of dialogues is: distinct n-grams in a fixed number of words.

The share of distinct n-grams falls with the length of a text, so all are measured on stretches of
one length (distinct-n: Li et al., arXiv 1510.03055).
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError

ORDERS = (1, 2, 3)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words_of(texts: Iterable[str]) -> list[str]:
    """Returns the words of texts in lower case, without marks."""
    return [word.lower() for text in texts for word in _WORD.findall(text)]


def turn_texts(conversations: Sequence[Conversation]) -> Iterator[str]:
    """Yields what is said, turn by turn."""
    return (turn.text for conversation in conversations for turn in conversation.turns)


def fact_texts(conversations: Sequence[Conversation]) -> Iterator[str]:
    """Yields what is noted, fact by fact."""
    return (fact.text for conversation in conversations for fact in conversation.facts)


def distinct_ngrams(texts: Iterable[str], length: int = 5000) -> dict[int, float]:
    """Computes the mean share of distinct n-grams in stretches of `length` words, by n.

    Raises:
      UserError: there are fewer words than one stretch has.
    """
    words = words_of(texts)
    starts = range(0, len(words) - length + 1, length)
    if not starts:
        raise UserError(
            f"There are {len(words)} words, fewer than the {length} that n-grams are counted in."
            " Name more dialogues, or lower --words."
        )
    return {
        order: sum(_distinct(words[start : start + length], order) for start in starts)
        / len(starts)
        for order in ORDERS
    }


def _distinct(words: Sequence[str], order: int) -> float:
    grams = list(zip(*(words[place:] for place in range(order)), strict=False))
    return len(set(grams)) / len(grams)
