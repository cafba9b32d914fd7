"""Hashes the words of a text for retrieval: the polynomial over a word's characters, modulo 2^32.

Words are those of `folding.words_to_search`: folded runs of letters and digits, and pairs of
neighbouring characters in scripts without spaces. A mark adds to the term of the character before
it. The number of any other character is its code point plus 1.

Axis letters: C bytes, A words.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.text.folding import LETTER, MARK, SPACELESS, UnicodeTables, scramble, unicode_tables
from memr1_jax.text.normalize import decode_utf8
from memr1_jax.text.white_space import latest

_BASE = 16777619  # the prime of FNV-1a


def hash_word(word: str) -> int:
    """Hashes one of `folding.words_to_search`."""
    value = 0
    if word.isascii():
        for byte in word.encode():
            value = (value * _BASE + byte + 1) % 2**32
        return value
    tables = unicode_tables()
    code = np.array([ord(character) for character in word])
    page, low = tables.page[code >> 8], code & 0xFF
    base, mark = (code + tables.base[page, low]).astype(np.uint32), tables.kind[page, low] == MARK
    terms = np.where(mark, scramble(base), base + np.uint32(1)) + tables.marks[page, low]
    for term, more in zip(terms.tolist(), mark.tolist(), strict=True):
        value = (value * (1 if more else _BASE) + term) % 2**32
    return value


@functools.partial(jax.jit, static_argnums=3)
def hash_words(tables: UnicodeTables, text: jax.Array, length: jax.Array, most: int) -> jax.Array:
    """Hashes the first A = `most` words of the bytes `text [C]`: `[A]` uint32, then 0."""
    capacity = text.shape[0]
    code, begins = decode_utf8(text, 0, length)
    page, low = jnp.asarray(tables.page)[code >> 8], code & 0xFF
    kind = jnp.asarray(tables.kind)[page, low]
    base = (code + jnp.asarray(tables.base)[page, low]).astype(jnp.uint32)

    # A character with its predecessor and successor; marks belong to the one before.
    character = begins & (kind != MARK)
    owner = latest(character)
    before = jnp.append(jnp.full(1, -1, jnp.int32), owner)[:capacity]
    after = jnp.append(_next(character)[1:], capacity)
    kinds = jnp.append(jnp.where(character, kind, 0), jnp.zeros(1, kind.dtype))
    former, latter = kinds[before], kinds[after]  # the last place stands for no character
    letter, alone = character & (kind == LETTER), character & (kind == SPACELESS)
    opens, closes = letter & (former != LETTER), letter & (latter != LETTER)
    pairs = alone & (former == SPACELESS)
    ends = closes | pairs | (alone & (latter != SPACELESS))
    start = jnp.where(letter, latest(opens), jnp.where(pairs, before, jnp.arange(capacity)))

    # With place p of a character in the text, a term is its number times base^-p, and a word from
    # one place to another is a difference of sums of terms times base^(last p).
    place = jnp.cumsum(character)
    counted = begins & ((letter | alone)[owner] & (owner >= 0))
    number = (
        jnp.where(kind == MARK, scramble(base), base + 1) + jnp.asarray(tables.marks)[page, low]
    )
    powers, inverses = _powers(capacity + 1)
    terms = jnp.where(counted, number * inverses[place], 0)
    sums = jnp.append(jnp.zeros(1, jnp.uint32), jnp.cumsum(terms, dtype=jnp.uint32))
    word = (sums[after] - sums[start]) * powers[place]

    target = jnp.where(ends, jnp.cumsum(ends) - 1, most)
    return jnp.zeros(most, jnp.uint32).at[target].set(word, mode="drop")


def _next(where: jax.Array) -> jax.Array:
    """Finds the first place at or after each place where `where [C]` holds, else C."""
    return where.shape[0] - 1 - latest(where[::-1])[::-1]


def _powers(size: int) -> tuple[jax.Array, jax.Array]:
    """Lists powers of the base and of its inverse modulo 2^32."""
    factors = np.ones((2, size), np.uint32)
    factors[:, 1:] = np.array([[_BASE], [pow(_BASE, -1, 2**32)]])
    powers, inverses = np.cumprod(factors, axis=1, dtype=np.uint32)
    return jnp.asarray(powers), jnp.asarray(inverses)
