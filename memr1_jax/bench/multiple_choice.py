"""Scores of multiple-choice answers as in PersonaMem (arXiv 2504.14225), options (a) to (d)."""

import re

MULTIPLE_CHOICE_METRICS = ("accuracy_personamem_official", "accuracy_marked_option")

_MARK, _END_MARK = "<final_answer>", "</final_answer>"
_IN_BRACKETS = re.compile(r"\(([a-d])\)")
_ALONE = re.compile(r"\b([a-d])\b")
# Neither the article nor the d of "I'd": a letter after "option", a capital A in a sentence, or a
# letter that no word follows where it is an a.
_MARKED = re.compile(
    r"\b(?i:option|choice)\s+([a-dA-D])\b"
    r"|(?<=[a-z:] )(A)\b"
    r"|(?<![\w'’])([b-dB-D]|[aA](?!['’]?[ \t]*\w))\b"
)


def choose_official(text: str) -> frozenset[str]:
    """Returns the options that PersonaMem's own script finds in a text.

    All letters a to d in round brackets; without any, all that stand alone as words, so that the
    article "a" and the d of "I'd" count as options.
    """
    text = text.lower()
    return frozenset(_IN_BRACKETS.findall(text) or _ALONE.findall(text))


def choose_marked(text: str) -> frozenset[str]:
    """Returns the options a text marks: as `choose_official`, less articles and contractions.

    A lone "a" counts only where no word follows it, after "option" or "choice", or as a capital
    within a sentence.
    """
    found = _IN_BRACKETS.findall(text.lower())
    return frozenset(found or ("".join(groups).lower() for groups in _MARKED.findall(text)))


def score_multiple_choice(response: str, key: str) -> dict[str, float]:
    """Returns both accuracies of one response, 0 or 1.

    A response is right where the options found after its last `<final_answer>` are exactly the key,
    or else those found in the whole of it. `accuracy_personamem_official` is the published rule;
    `accuracy_marked_option` differs in what counts as naming an option, see `choose_marked`.

    Args:
      response: the whole response.
      key: the right option, such as "(c)" or "c".

    Raises:
      ValueError: the key is no option.
    """
    wanted = key.lower().strip("() ")
    if wanted not in ("a", "b", "c", "d"):
        raise ValueError(f"{key!r} is not one of the options (a) to (d).")
    final = response.strip().split(_MARK)[-1].strip().removesuffix(_END_MARK)
    choosers = (choose_official, choose_marked)
    return {
        name: float(any(choose(text) == {wanted} for text in (final, response)))
        for name, choose in zip(MULTIPLE_CHOICE_METRICS, choosers, strict=True)
    }
