"""Finds the short answer in the Answer Agent's response, on the device and in plain Python."""

import enum
import re

import jax
import jax.numpy as jnp

from memr1_jax.text.reasoning import SPACE, after_reasoning, occurrences, one_of, reasoning_end

_STRIPPED = SPACE + "*"
_BULLET = re.compile(rf"\A(?:[-+•]+(?:[{re.escape(_STRIPPED)}]+|\Z))+")  # or a ruled line


class AnswerRule(enum.IntEnum):
    """Names the rule that found the answer; the first that matches wins, in this order."""

    TAG = 0  # <answer>x</answer>, any case, across lines
    BOLD_LABEL = 1  # **Answer:** x  or  **Answer**: x, to the end of the line
    BOLD_LINE = 2  # **Answer: x**, on one line
    LABEL = 3  # Answer: x, to the end of the line
    WHOLE = 4  # the whole text


# In all of them the last match counts: later text takes back earlier text.
_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.IGNORECASE | re.DOTALL | re.ASCII)
_BOLD_LABEL = re.compile(r"(?=(\*\*Answer(?::\*\*|\*\*:)))")
_BOLD_LINE = re.compile(r"(?=\*\*Answer:([^\n]*?)\*\*)")
_LABEL = re.compile(r"(Answer:)")


def extract_answer(text: str) -> tuple[str, AnswerRule]:
    """Returns the answer in `text`, less ASCII white space and asterisks around it, and the rule.

    Reasoning is not read. Of several labels of a kind the last counts; where nothing follows it on
    its line, the first line below that is not empty is the answer, without a bullet.

    Source: Memory-R1 (arXiv 2508.19828), which asks for the answer after `**Answer:**`; the other
    rules catch what small models write instead.
    """
    text = after_reasoning(text)
    if tagged := _TAG.findall(text):
        return tagged[-1].strip(_STRIPPED), AnswerRule.TAG
    if labels := [*_BOLD_LABEL.finditer(text)]:
        return _after_label(text[labels[-1].end(1) :]), AnswerRule.BOLD_LABEL
    if lines := [line for line in _BOLD_LINE.findall(text) if line.strip(_STRIPPED)]:
        return lines[-1].strip(_STRIPPED), AnswerRule.BOLD_LINE
    if labels := [*_LABEL.finditer(text)]:
        return _after_label(text[labels[-1].end(1) :]), AnswerRule.LABEL
    return text.strip(_STRIPPED), AnswerRule.WHOLE


def _after_label(text: str) -> str:
    first, *below = (line.strip(_STRIPPED) for line in text.split("\n"))
    return first or next(filter(None, (_BULLET.sub("", line) for line in below)), "")


@jax.jit
def answer_span(text: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (start, end, rule) of the answer in the bytes `text [C]` uint8; see `extract_answer`.

    All three are int32 scalars; an empty answer has start = end.
    """
    capacity = text.shape[0]
    place = jnp.arange(capacity, dtype=jnp.int32)
    begin = reasoning_end(text, length)
    inside = (place >= begin) & (place < length)
    lower = jnp.where((text >= ord("A")) & (text <= ord("Z")), text + 32, text)
    written = inside & ~one_of(text, _STRIPPED)
    newline = occurrences(text, inside, "\n")

    def last(where: jax.Array) -> jax.Array:
        return jnp.max(jnp.where(where, place, -1))

    def following(where: jax.Array, default: jax.Array | int) -> jax.Array:
        """Returns the next place at or after each place where `where` holds: `[C + 1]`."""
        marked = jnp.append(jnp.where(where, place, default), default)
        return jax.lax.cummin(marked, reverse=True)

    def after(table: jax.Array, index: jax.Array, skip: int = 0) -> jax.Array:
        return table[jnp.minimum(index + skip, capacity)]

    line_end = following(newline, length)
    next_written = following(written, capacity)
    bullets = _bullets(text, inside, written, newline, following)
    next_below = following(written & ~bullets, capacity)
    stars = following(occurrences(text, inside, "**"), capacity)
    closing = following(occurrences(lower, inside, "</answer>"), capacity)

    def after_label(label: jax.Array, skip: int) -> tuple[jax.Array, jax.Array]:
        start, end = label + skip, after(line_end, label, skip)
        below = after(next_below, end)
        found_below = (after(next_written, label, skip) >= end) & (below < capacity)
        return jnp.where(found_below, below, start), jnp.where(
            found_below, after(line_end, below), end
        )

    opening = occurrences(lower, inside, "<answer>")
    tag = last(opening & (after(closing, place, 8) < capacity))
    bold_label = last(
        occurrences(text, inside, "**Answer:**") | occurrences(text, inside, "**Answer**:")
    )
    shut = jnp.minimum(after(stars, place, 9), after(line_end, place, 9))
    bold_line = occurrences(text, inside, "**Answer:") & (shut == after(stars, place, 9))
    bold_line = last(bold_line & (after(next_written, place, 9) < shut))
    label = last(occurrences(text, inside, "Answer:"))

    spans = [
        (tag + 8, after(closing, tag, 8)),
        after_label(bold_label, 11),
        (bold_line + 9, after(stars, bold_line, 9)),
        after_label(label, 7),
        (begin, length),
    ]
    found = jnp.stack([tag, bold_label, bold_line, label, 0]) >= 0
    rule = jnp.argmax(found).astype(jnp.int32)
    start, end = (jnp.stack(side)[rule] for side in zip(*spans, strict=True))
    kept = written & (place >= start) & (place < end)
    first = jnp.min(jnp.where(kept, place, capacity))
    begin = jnp.where(jnp.any(kept), first, start)
    stop = jnp.where(jnp.any(kept), last(kept) + 1, begin)
    return begin.astype(jnp.int32), stop.astype(jnp.int32), rule


def _bullets(text, inside, written, newline, following) -> jax.Array:
    """Marks the bytes of bullets: first on their line, with white space or nothing after them."""
    place = jnp.arange(text.shape[0], dtype=jnp.int32)
    wide = occurrences(text, inside, "•")
    mark = inside & one_of(text, "-+") | wide
    for step in (1, 2):  # the other bytes of the wide one
        mark = mark | jnp.append(jnp.zeros(step, bool), wide)[: len(text)]

    def latest(where):
        return jax.lax.cummax(jnp.where(where, place, -1))

    leads = mark & (latest(written & ~mark) < latest(newline))
    ends = following(~mark, len(text))[: len(text)]
    return leads & ~jnp.append(written, False)[ends]
