"""Passes over a model's reasoning before its answer; no rule and no scanner reads it.

Reasoning ends at the last `</think>`. A text that then begins with `<think>` was cut off within its
reasoning and says nothing.
"""

import functools
import operator

import jax
import jax.numpy as jnp

BEGIN, END = "<think>", "</think>"
SPACE = " \t\n\r\v\f"


def after_reasoning(text: str) -> str:
    """Returns the text after the reasoning."""
    rest = text.rpartition(END)[2]
    return "" if rest.lstrip(SPACE).startswith(BEGIN) else rest


def reasoning_end(text: jax.Array, length: jax.Array) -> jax.Array:
    """Returns where `after_reasoning` begins in the bytes `text [C]` uint8; an int32 scalar."""
    place = jnp.arange(text.shape[0], dtype=jnp.int32)
    inside = place < length
    closed = jnp.max(jnp.where(occurrences(text, inside, END), place + len(END), 0))
    written = inside & (place >= closed) & ~one_of(text, SPACE)
    first = jnp.min(jnp.where(written, place, length))
    cut_off = jnp.any(occurrences(text, inside, BEGIN) & (place == first))
    return jnp.where(cut_off, length, closed).astype(jnp.int32)


def occurrences(text: jax.Array, inside: jax.Array, pattern: str) -> jax.Array:
    """Marks where `pattern`, in UTF-8, begins among the bytes `inside`: `[C]` bool."""
    data, size = pattern.encode(), text.shape[0]
    padded = jnp.concatenate([jnp.where(inside, text, 0), jnp.zeros(len(data), text.dtype)])
    hits = (jax.lax.slice(padded, (k,), (k + size,)) == byte for k, byte in enumerate(data))
    return functools.reduce(operator.and_, hits)


def one_of(text: jax.Array, characters: str) -> jax.Array:
    """Marks the bytes that are one of some ASCII characters: `[C]` bool."""
    return jnp.isin(text, jnp.asarray([ord(c) for c in characters], text.dtype))
