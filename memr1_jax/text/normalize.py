"""SQuAD normalisation on the device: bytes to code points to words to hashes.

The rule, in this order (SQuAD, arXiv 1606.05250; the reward of Search-R1): lower-case, delete ASCII
punctuation, delete the words a, an, the, split at white space. Where nothing would be left, as in
the answer "A" or "(a)", the articles are kept; text of punctuation alone is kept too. Beyond
ASCII, characters are folded as in `folding`, and characters of scripts without spaces are words by
themselves. Unlike in SQuAD, typographic apostrophes, quotes and dashes are those of ASCII to
the array forms. `normalize_text` is the rule in plain Python; the forms on the device and on the
host agree everywhere.
"""

import functools
import re
import string

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.arrays import on_host
from memr1_jax.text.folding import (
    LETTER,
    MARK,
    REMOVED,
    SPACE,
    SPACELESS,
    UnicodeTables,
    character_class,
    character_numbers,
    fold_text,
    scramble,
    single_characters,
)
from memr1_jax.text.folding import unicode_tables as unicode_tables
from memr1_jax.text.plain import whole
from memr1_jax.text.white_space import latest

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TYPOGRAPHIC = {"'": "‘’‚‛ʼ′", '"': "“”„‟″", "-": "‐‑‒–—―−"}  # what stands for each plain mark
_PLAIN_MARKS = {ord(mark): plain for plain, marks in _TYPOGRAPHIC.items() for mark in marks}
_REPLACEMENT = 0xFFFD
_SEEDS = np.array([0x9E3779B9, 0x7F4A7C15], np.uint32)


@flax.struct.dataclass
class Words:
    """The words of a normalised text.

    `hash [A, 2]` uint32, two independent hashes of each word, zero after `count` int32;
    `overflow` bool, true when the text has more than A words.
    """

    hash: jax.Array
    count: jax.Array
    overflow: jax.Array


@functools.cache
def _articles() -> re.Pattern:
    letter = rf"[\w{character_class(MARK)}]"
    return re.compile(f"(?<!{letter})(?:a|an|the)(?!{letter})")


def normalize_text(text: str, plain_marks: bool = False) -> str:
    """Applies the rule in plain Python; single spaces stand between the words.

    With `plain_marks` typographic apostrophes, quotes and dashes are those of ASCII.
    """
    return " ".join(_words(text.translate(_PLAIN_MARKS) if plain_marks else text))


def _words(text: str) -> list[str]:
    folded = fold_text(text)
    said = _cut(folded.translate(_PUNCTUATION))
    return _articles().sub(" ", said).split() or said.split() or _cut(folded).split()


def _cut(folded: str) -> str:
    return " ".join(part for word in folded.split() for part in single_characters(word))


def _with_plain_marks(code):
    for plain, marks in _TYPOGRAPHIC.items():
        stands_for = jnp.isin(code, jnp.asarray([ord(mark) for mark in marks], code.dtype))
        code = jnp.where(stands_for, ord(plain), code)
    return code


def _factor(position, seed):
    """Weighs a character in the hash of its word, by its position and for two seeds."""
    return scramble(position * np.uint32(0x85EBCA77) + seed) | np.uint32(1)


@jax.jit
def decode_utf8(
    text: jax.Array, start: jax.Array | int, end: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Decodes the bytes `text [C]` uint8 in `[start, end)` as `bytes.decode("utf-8", "replace")`.

    Returns `code [C]` int32, the code point that begins at each byte, and `begins [C]` bool. Every
    ill-formed stretch becomes one U+FFFD per maximal subpart (Unicode 15, section 3.9).
    """
    place = jnp.arange(text.shape[0])
    value = jnp.where((place >= start) & (place < end), text, 0).astype(jnp.int32)
    ahead = jnp.append(value, jnp.zeros(3, jnp.int32))
    second, third, fourth = (jax.lax.slice(ahead, (k,), (k + len(text),)) for k in (1, 2, 3))

    size = jnp.select(
        [value < 0x80, value < 0xC2, value < 0xE0, value < 0xF0, value < 0xF5], [1, 0, 2, 3, 4], 0
    )
    low = jnp.where(value == 0xE0, 0xA0, jnp.where(value == 0xF0, 0x90, 0x80))
    high = jnp.where(value == 0xED, 0x9F, jnp.where(value == 0xF4, 0x8F, 0xBF))
    has2 = (size >= 2) & (second >= low) & (second <= high)
    has3 = has2 & (size >= 3) & (third >> 6 == 2)
    has4 = has3 & (size >= 4) & (fourth >> 6 == 2)
    matched = 1 + has2 + has3 + has4

    tail2, tail3, tail4 = second & 0x3F, third & 0x3F, fourth & 0x3F
    code = jnp.select(
        [matched != size, size == 1, size == 2, size == 3],
        [
            jnp.int32(_REPLACEMENT),
            value,
            (value & 0x1F) << 6 | tail2,
            (value & 0x0F) << 12 | tail2 << 6 | tail3,
        ],
        (value & 0x07) << 18 | tail2 << 12 | tail3 << 6 | tail4,
    )
    covered = jnp.zeros(text.shape[0], bool)
    for step in (1, 2, 3):
        reaches = jnp.append(jnp.zeros(step, bool), matched > step)[: text.shape[0]]
        covered = covered | reaches
    return code, (place >= start) & (place < end) & ~covered


def _compact(values: jax.Array, keep: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves the kept values `[C]` to the front; also return their number."""
    rank = jnp.cumsum(keep) - 1
    target = jnp.where(keep, rank, values.shape[0])
    return jnp.zeros_like(values).at[target].set(values, mode="drop"), rank[-1] + 1


def _of_articles(code: jax.Array, letter: jax.Array, cut: jax.Array) -> jax.Array:
    """Marks the code points `[C]` of a run of letters and digits that spells an article.

    A run also ends where a word is `cut` before a character.
    """
    size = code.shape[0]
    pad = jnp.zeros(3, bool)
    goes_on = jnp.append(letter & ~cut, pad)
    codes = jnp.append(code, jnp.zeros(3, code.dtype))
    begins = letter & (cut | ~_follows(letter))
    covered = jnp.zeros(size + 3, bool)
    for article in ("a", "an", "the"):
        width = len(article)
        spelled = begins & ~goes_on[width : width + size]
        for k, character in enumerate(article):
            spelled = spelled & (codes[k : k + size] == ord(character))
        for k in range(width):
            covered = covered.at[k : k + size].set(covered[k : k + size] | spelled)
    return covered[:size]


def _follows(where: jax.Array) -> jax.Array:
    """Marks the places right after one where `where [C]` holds."""
    return jnp.append(jnp.zeros(1, bool), where)[: where.shape[0]]


@functools.partial(jax.jit, static_argnums=4)
def words_of_bytes(
    tables: UnicodeTables, text: jax.Array, start: jax.Array, end: jax.Array, max_words: int
) -> Words:
    """Normalises the bytes `text [C]` in `[start, end)` and hashes their words (A = max_words).

    Equal to `words_of_text` of the decoded text.
    """
    capacity = text.shape[0]
    code, begins = decode_utf8(text, start, end)
    code = _with_plain_marks(code)
    page, low = jnp.asarray(tables.page)[code >> 8], code & 0xFF
    kind = jnp.asarray(tables.kind)[page, low]
    said = begins & (kind != REMOVED)
    keep = jnp.where(jnp.any(said & (kind != SPACE)), said, begins)
    columns = (
        code + jnp.asarray(tables.shift)[page, low],
        kind,
        scramble((code + jnp.asarray(tables.base)[page, low]).astype(jnp.uint32))
        + jnp.asarray(tables.marks)[page, low],
    )
    (code, total), (kind, _), (number, _) = (_compact(column, keep) for column in columns)

    place = jnp.arange(capacity, dtype=jnp.int32)
    letter = (kind == LETTER) | (kind == SPACELESS) | (kind == MARK)
    inside = (place < total) & (kind != SPACE)
    base = inside & (kind != MARK)
    last = jnp.append(jnp.full(1, -1), latest(base))[:capacity]
    in_run = last >= latest(inside & ~_follows(inside))
    cut = base & ((kind == SPACELESS) | (in_run & (kind[last] == SPACELESS)))
    solid = inside & ~_of_articles(code, letter, cut)
    inside = jnp.where(jnp.any(solid), solid, inside)
    starts = inside & (~_follows(inside) | cut)
    word = jnp.cumsum(starts) - 1
    count = jnp.cumsum(base)
    first = jax.lax.cummax(jnp.where(starts, place, 0))
    position = jnp.maximum(count - count[first] + base[first] - 1, 0)  # a mark has its base's
    hashed = number[:, None] * _factor(position.astype(jnp.uint32)[:, None], _SEEDS)
    target = jnp.where(inside, word, max_words)
    hashes = jnp.zeros((max_words, 2), jnp.uint32).at[target].add(hashed, mode="drop")
    found = word[-1] + 1
    return Words(hashes, jnp.minimum(found, max_words).astype(jnp.int32), found > max_words)


def words_of_text(text: str, max_words: int) -> Words:
    """Normalises `text` on the host and hashes its words, as NumPy arrays; for gold answers."""
    words = _words(whole(text).translate(_PLAIN_MARKS))
    hashes = np.zeros((max_words, 2), np.uint32)
    for i, word in enumerate(words[:max_words]):
        kind, number = character_numbers(word)
        position = np.maximum(np.cumsum(kind != MARK) - 1, 0).astype(np.uint32)
        hashed = number[:, None] * _factor(position[:, None], _SEEDS)
        hashes[i] = hashed.sum(axis=0, dtype=np.uint32)
    count, more = np.int32(min(len(words), max_words)), np.bool_(len(words) > max_words)
    return on_host(Words, hashes, count, more)
