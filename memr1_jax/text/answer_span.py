"""Find the short answer in what the Answer Agent wrote, on the device and in plain Python."""

import enum
import re

import jax
import jax.numpy as jnp

_STRIPPED = " \t\n\r\v\f*"


class AnswerRule(enum.IntEnum):
    """Which rule found the answer; the first that matches wins, in this order."""

    TAG = 0  # <answer>x</answer>, any case, across lines
    BOLD_LABEL = 1  # **Answer:** x  or  **Answer**: x, to the end of the line
    BOLD_LINE = 2  # **Answer: x**, on one line
    LABEL = 3  # Answer: x, to the end of the line
    WHOLE = 4  # the whole text


_PATTERNS = {
    AnswerRule.TAG: re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL | re.ASCII),
    AnswerRule.BOLD_LABEL: re.compile(r"\*\*Answer(?::\*\*|\*\*:)([^\n]*)"),
    AnswerRule.BOLD_LINE: re.compile(r"\*\*Answer:([^\n]*?)\*\*"),
    AnswerRule.LABEL: re.compile(r"Answer:([^\n]*)"),
}


def extract_answer(text: str) -> tuple[str, AnswerRule]:
    """Return the answer in `text`, without ASCII white space and asterisks around it, and the rule.

    Source: Memory-R1 (arXiv 2508.19828), which asks for the answer after `**Answer:**`; the other
    rules catch what small models write instead.
    """
    for rule, pattern in _PATTERNS.items():
        if match := pattern.search(text):
            return match.group(1).strip(_STRIPPED), rule
    return text.strip(_STRIPPED), AnswerRule.WHOLE


def _occurrences(text: jax.Array, inside: jax.Array, pattern: str) -> jax.Array:
    """Where `pattern` begins: `[C]` bool."""
    size = len(pattern)
    padded = jnp.concatenate([jnp.where(inside, text, 0), jnp.zeros(size, text.dtype)])
    hits = [padded[k : k + text.shape[0]] == ord(character) for k, character in enumerate(pattern)]
    return jnp.all(jnp.stack(hits), axis=0)


def answer_span(text: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (start, end, rule) of the answer in the bytes `text [C]` uint8; see `extract_answer`.

    All three are int32 scalars; an empty answer has start = end.
    """
    capacity = text.shape[0]
    place = jnp.arange(capacity, dtype=jnp.int32)
    inside = place < length
    lower = jnp.where((text >= ord("A")) & (text <= ord("Z")), text + 32, text)

    def first(where: jax.Array) -> jax.Array:
        return jnp.min(jnp.where(where, place, capacity))

    def following(where: jax.Array, default: jax.Array) -> jax.Array:
        """The next place at or after each place where `where` holds: `[C + 1]`."""
        marked = jnp.append(jnp.where(where, place, default), default)
        return jax.lax.cummin(marked, reverse=True)

    def after(table: jax.Array, index: jax.Array, skip: int) -> jax.Array:
        return table[jnp.minimum(index + skip, capacity)]

    line_end = following(_occurrences(text, inside, "\n"), length)
    stars = following(_occurrences(text, inside, "**"), capacity)
    closing = following(_occurrences(lower, inside, "</answer>"), capacity)

    tag = first(_occurrences(lower, inside, "<answer>"))
    tag_end = after(closing, tag, 8)
    bold_label = first(
        _occurrences(text, inside, "**Answer:**") | _occurrences(text, inside, "**Answer**:")
    )
    opened = _occurrences(text, inside, "**Answer:")
    bold_line = first(opened & (after(stars, place, 9) < after(line_end, place, 9)))
    label = first(_occurrences(text, inside, "Answer:"))

    found = jnp.stack([tag_end, bold_label, bold_line, label, 0]) < capacity
    start = jnp.stack([tag + 8, bold_label + 11, bold_line + 9, label + 7, 0])
    end = jnp.stack(
        [
            tag_end,
            after(line_end, bold_label, 11),
            after(stars, bold_line, 9),
            after(line_end, label, 7),
            length,
        ]
    )
    rule = jnp.argmax(found).astype(jnp.int32)
    stripped = jnp.isin(text, jnp.asarray([ord(c) for c in _STRIPPED], text.dtype))
    kept = (place >= start[rule]) & (place < end[rule]) & ~stripped
    begin = jnp.where(jnp.any(kept), first(kept), start[rule])
    stop = jnp.where(jnp.any(kept), jnp.max(jnp.where(kept, place, -1)) + 1, begin)
    return begin.astype(jnp.int32), stop.astype(jnp.int32), rule
