"""SQuAD normalisation on the device: bytes to code points to words to hashes.

The rule, in this order (SQuAD, arXiv 1606.05250; the reward of Search-R1): lower-case, delete ASCII
punctuation, delete the words a, an, the, split at white space. Where nothing would be left, as of
the answer "A" or "(a)", the articles are kept, and where there is punctuation alone, that. Other
than in SQuAD, typographic apostrophes, quotes and dashes are those of ASCII to the array forms.

`normalize_text` is the rule in plain Python. The array form works with tables of single code
points, so it differs where `str.lower` does not: a capital sigma (U+03A3) at the end of a word
becomes the medial form, and the dotted capital I (U+0130) becomes a plain i instead of i with a
combining dot. Both array forms, on the device and on the host, agree with each other everywhere.
"""

import functools
import re
import string

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

_REMOVED, _SPACE, _LETTER, _OTHER = range(4)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PLAIN_MARKS = str.maketrans(
    dict.fromkeys("‘’‚‛ʼ′", "'") | dict.fromkeys("“”„‟″", '"') | dict.fromkeys("‐‑‒–—―−", "-")
)
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


@flax.struct.dataclass
class UnicodeTables:
    """Lower case and kind of every code point, in pages of 256 of which equal ones are shared.

    `page [4352]` int32; `shift [pages, 256]` int32, what lower-casing adds to the code point;
    `kind [pages, 256]` uint8 of the lower-cased character.
    """

    page: jax.Array
    shift: jax.Array
    kind: jax.Array


def normalize_text(text: str, plain_marks: bool = False) -> str:
    """Apply the rule in plain Python; with `plain_marks` to the text with ASCII's marks."""
    return " ".join(_split(text.translate(_PLAIN_MARKS).lower() if plain_marks else text.lower()))


def _split(lowered: str) -> list[str]:
    """Return the words of a text in lower case; all of them where nothing else would be left."""
    kept = "".join(c for c in lowered if c not in string.punctuation)
    return _ARTICLES.sub(" ", kept).split() or kept.split() or lowered.split()


def _kind(character: str) -> int:
    if character in string.punctuation:
        return _REMOVED
    if character.isspace():
        return _SPACE
    return _LETTER if character.isalnum() else _OTHER


@functools.cache
def unicode_tables() -> UnicodeTables:
    """Build the tables from Python's own Unicode data, as NumPy arrays (about 250 kB)."""
    known = 0x40000  # no letters, spaces or cases above
    lower = np.arange(0x110000, dtype=np.int32)
    kind = np.full(0x110000, _OTHER, np.uint8)
    for code in range(known):
        character = chr(code).translate(_PLAIN_MARKS).lower()[0]
        lower[code] = ord(character)
        kind[code] = _kind(character)
    shift = lower - np.arange(0x110000, dtype=np.int32)
    rows = np.stack([shift, kind], axis=-1).reshape(-1, 512)
    pages, page = np.unique(rows, axis=0, return_inverse=True)
    return UnicodeTables(
        page=page.reshape(-1).astype(np.int32),
        shift=pages[:, 0::2].copy(),
        kind=pages[:, 1::2].astype(np.uint8),
    )


def _mix(code, position, seed):
    """Scatter (code point, place in the word) over 32 bits; a word's hash is the sum of these.

    Works on uint32 arrays of NumPy and of JAX alike. The multipliers and shifts are those of the
    finaliser of MurmurHash3 (public domain).
    """
    value = code * np.uint32(0x01000193) + position * np.uint32(0x85EBCA77) + seed
    value = (value ^ (value >> 16)) * np.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * np.uint32(0xC2B2AE35)
    return value ^ (value >> 16)


def is_space(code: jax.Array) -> jax.Array:
    """Mark the code points that `str.isspace` calls white space."""
    spaces = [c for c in range(0x3001) if chr(c).isspace()]  # there are none above
    return jnp.isin(code, jnp.asarray(spaces, code.dtype))


def decode_utf8(text: jax.Array, start: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Decode the bytes `text [C]` uint8 in `[start, end)` as `bytes.decode("utf-8", "replace")`.

    Returns `code [C]` int32, the code point that begins at each byte, and `begins [C]` bool. Every
    ill-formed stretch becomes one U+FFFD per maximal subpart (Unicode 15, section 3.9).
    """
    place = jnp.arange(text.shape[0])
    value = jnp.where((place >= start) & (place < end), text, 0).astype(jnp.int32)
    ahead = jnp.append(value, jnp.zeros(3, jnp.int32))
    second, third, fourth = (ahead[k : k + text.shape[0]] for k in (1, 2, 3))

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
    """Move the kept values `[C]` to the front; also return their number."""
    rank = jnp.cumsum(keep) - 1
    target = jnp.where(keep, rank, values.shape[0])
    return jnp.zeros_like(values).at[target].set(values, mode="drop"), rank[-1] + 1


def _articles(code: jax.Array, letter: jax.Array) -> jax.Array:
    """Which code points `[C]` belong to a run of letters and digits that spells an article."""
    size = code.shape[0]
    pad = jnp.zeros(3, bool)
    is_letter = jnp.append(letter, pad)
    codes = jnp.append(code, jnp.zeros(3, code.dtype))
    begins = letter & ~jnp.append(jnp.zeros(1, bool), letter)[:size]
    covered = jnp.zeros(size + 3, bool)
    for article in ("a", "an", "the"):
        width = len(article)
        spelled = begins & ~is_letter[width : width + size]
        for k, character in enumerate(article):
            spelled = spelled & (codes[k : k + size] == ord(character))
        for k in range(width):
            covered = covered.at[k : k + size].set(covered[k : k + size] | spelled)
    return covered[:size]


def words_of_bytes(
    tables: UnicodeTables, text: jax.Array, start: jax.Array, end: jax.Array, max_words: int
) -> Words:
    """Normalise the bytes `text [C]` uint8 in `[start, end)` and hash their words (A = max_words).

    Equal to `words_of_text` of the decoded text.
    """
    capacity = text.shape[0]
    code, begins = decode_utf8(text, start, end)
    page = jnp.asarray(tables.page)[code >> 8]
    kind = jnp.asarray(tables.kind)[page, code & 0xFF]
    code = code + jnp.asarray(tables.shift)[page, code & 0xFF]
    said = begins & (kind != _REMOVED)
    keep = jnp.where(jnp.any(said & (kind != _SPACE)), said, begins)
    code, total = _compact(code, keep)
    kind, _ = _compact(kind, keep)

    place = jnp.arange(capacity, dtype=jnp.int32)
    written = (place < total) & (kind != _SPACE)
    inside = written & ~_articles(code, kind == _LETTER)
    inside = jnp.where(jnp.any(inside), inside, written)
    starts = inside & ~jnp.append(jnp.zeros(1, bool), inside)[:capacity]
    word = jnp.cumsum(starts) - 1
    position = place - jax.lax.cummax(jnp.where(starts, place, 0))
    mixed = _mix(
        code.astype(jnp.uint32)[:, None], position.astype(jnp.uint32)[:, None], _SEEDS[None, :]
    )
    target = jnp.where(inside, word, max_words)
    hashes = jnp.zeros((max_words, 2), jnp.uint32).at[target].add(mixed, mode="drop")
    found = word[-1] + 1
    return Words(hashes, jnp.minimum(found, max_words).astype(jnp.int32), found > max_words)


def words_of_text(text: str, max_words: int) -> Words:
    """Normalise `text` on the host and hash its words, as NumPy arrays; used for gold answers."""
    tables = unicode_tables()
    code = np.array([ord(c) for c in text], np.int32).reshape(-1)
    code = np.where((code >= 0xD800) & (code < 0xE000), _REPLACEMENT, code)
    code = code + tables.shift[tables.page[code >> 8], code & 0xFF]
    words = _split("".join(map(chr, code)))
    hashes = np.zeros((max_words, 2), np.uint32)
    for i, word in enumerate(words[:max_words]):
        letters = np.array([ord(c) for c in word], np.uint32)[:, None]
        positions = np.arange(len(word), dtype=np.uint32)[:, None]
        hashes[i] = _mix(letters, positions, _SEEDS[None, :]).sum(axis=0, dtype=np.uint32)
    return Words(hashes, np.int32(min(len(words), max_words)), np.bool_(len(words) > max_words))
