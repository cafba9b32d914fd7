"""Folds characters for comparison, and cuts words.

Letters are equal whatever their case (simple case folding of the Unicode standard), however they
are composed (canonical equivalence) and however wide they are drawn; full-width and CJK punctuation
is punctuation. Some scripts put no spaces between words, so their characters are cut singly.

A mark, such as an accent, belongs to the base character before it. `unicode_tables` holds all of
this as arrays, with numbers that add up to the same whether a character is composed or not:
that of `é` is the sum of those of `e` and of its accent. The functions here say it in plain Python.
"""

import functools
import re
import string
import unicodedata
from collections.abc import Iterator

import flax.struct
import jax
import numpy as np

from memr1_jax.arrays import on_host

REMOVED, SPACE, LETTER, OTHER, MARK, SPACELESS = range(6)  # kinds of characters

_KNOWN = 0x40000  # no letters, spaces or cases above
_MARKS_ABOVE = range(0xE0100, 0xE01F0)  # variation selectors, which lie beyond
_SPACELESS = (
    *("CJK UNIFIED", "CJK COMPAT", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATA"),
    *("THAI ", "LAO ", "KHMER ", "MYANMAR "),
)


@flax.struct.dataclass
class UnicodeTables:
    """Maps code points to their folded forms, in pages of 256; equal pages are shared.

    `page [4352]` int32; `shift [pages, 256]` int32, what folding adds to the code point; `kind`
    uint8 of the folded character; `base` int32, what leads from the code point to the first
    character of the folded one's decomposition, and `marks` uint32, the sum of the other ones'
    numbers.
    """

    page: jax.Array
    shift: jax.Array
    kind: jax.Array
    base: jax.Array
    marks: jax.Array


def scramble(value):
    """Spreads the bits of a uint32 (the finaliser of MurmurHash3, public domain).

    Works on arrays of NumPy and of JAX alike.
    """
    value = (value ^ (value >> 16)) * np.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * np.uint32(0xC2B2AE35)
    return value ^ (value >> 16)


def fold_character(character: str) -> str:
    """Returns the one character that a character is compared as."""
    if character.isascii():
        return character.lower()
    category, composed = unicodedata.category(character), unicodedata.decomposition(character)
    if category in ("Cn", "Co", "Cs") or (category == "Lo" and not composed):
        return character
    if 0xFF01 <= ord(character) <= 0xFFEE:
        wide = unicodedata.normalize("NFKC", character)
        character = wide if len(wide) == 1 else character
    single = unicodedata.normalize("NFD", character)
    character = single if len(single) == 1 else character
    if unicodedata.category(character).startswith("P") and _in_cjk_punctuation(character):
        return "."
    if is_mark(character):
        return character  # one becomes a letter by case folding
    return next(
        (c for c in (character.casefold(), character.lower()) if len(c) == 1), character.lower()[0]
    )


def _in_cjk_punctuation(character: str) -> bool:
    return 0x3001 <= ord(character) <= 0x303F or character == "\u30fb"


@functools.cache
def _attached() -> frozenset[str]:
    """Finds the ends of composed characters: accents, and the later letters of a syllable."""
    parts = (unicodedata.normalize("NFD", c) for c in _characters() if unicodedata.decomposition(c))
    hangul = (chr(c) for c in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)))
    return frozenset(hangul).union(*(text[1:] for text in parts))


def _characters() -> Iterator[str]:
    """Yields the characters that are assigned and below `_KNOWN`."""
    known = map(chr, range(_KNOWN))
    return (c for c in known if unicodedata.category(c) not in ("Cn", "Co", "Cs"))


def is_mark(character: str) -> bool:
    """Tells whether a character belongs to the one before it."""
    return unicodedata.category(character).startswith("M") or character in _attached()


def is_spaceless(character: str) -> bool:
    """Tells whether a letter's script puts no spaces between words."""
    letter = unicodedata.category(character) in ("Lo", "Lm", "Nl")
    return letter and unicodedata.name(character, "").startswith(_SPACELESS)


def kind_of(character: str) -> int:
    """Returns the kind of a folded character."""
    if character in string.punctuation:
        return REMOVED
    if character.isspace():
        return SPACE
    if is_mark(character):
        return MARK
    if is_spaceless(character):
        return SPACELESS
    return LETTER if character.isalnum() else OTHER


@functools.cache
def unicode_tables() -> UnicodeTables:
    """Builds the tables from Python's own Unicode data, as NumPy arrays."""
    code = np.arange(0x110000, dtype=np.int32)
    folded, base = code.copy(), code.copy()
    marks = np.zeros(0x110000, np.uint32)
    kind = np.full(0x110000, OTHER, np.uint8)
    kind[_MARKS_ABOVE.start : _MARKS_ABOVE.stop] = MARK
    with np.errstate(over="ignore"):
        numbers = scramble(code.astype(np.uint32))
        for character in _characters():
            place, single = ord(character), fold_character(character)
            parts = unicodedata.normalize("NFD", single)
            folded[place], base[place] = ord(single), ord(parts[0])
            kind[place] = kind_of(single)
            for mark in parts[1:]:
                marks[place] += numbers[ord(mark)]
    columns = (folded - code, kind, base - code, marks.view(np.int32))
    rows = np.stack(columns, axis=-1).reshape(-1, 4 * 256)
    pages = {row.tobytes(): place for place, row in reversed(list(enumerate(rows)))}
    first = sorted(pages.values())
    shift, kind, base, marks = np.moveaxis(rows[first].reshape(-1, 256, 4), -1, 0)
    return on_host(
        UnicodeTables,
        page=np.searchsorted(first, [pages[row.tobytes()] for row in rows]).astype(np.int32),
        shift=shift.astype(np.int32),
        kind=kind.astype(np.uint8),
        base=base.astype(np.int32),
        marks=np.ascontiguousarray(marks).astype(np.int32).view(np.uint32),
    )


def character_numbers(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kinds and the numbers of a text's characters, as NumPy arrays."""
    tables = unicode_tables()
    code = np.array([ord(c) for c in text], np.int32).reshape(-1)
    page, low = tables.page[code >> 8], code & 0xFF
    number = scramble((code + tables.base[page, low]).astype(np.uint32))
    return np.asarray(tables.kind[page, low]), np.asarray(number + tables.marks[page, low])


def _columns() -> tuple[np.ndarray, np.ndarray]:
    """Returns what folding adds to every code point, and the kind of the result."""
    tables = unicode_tables()
    shift, kind = (np.asarray(table) for table in (tables.shift, tables.kind))
    return shift[tables.page].reshape(-1), kind[tables.page].reshape(-1)


@functools.cache
def _translation() -> dict[int, int]:
    shift, _ = _columns()
    return {int(code): int(code + shift[code]) for code in np.flatnonzero(shift)}


def fold_text(text: str) -> str:
    """Folds every character of a text and composes it (NFC)."""
    return unicodedata.normalize("NFC", text.translate(_translation()))


@functools.cache
def character_class(*kinds: int) -> str:
    """Writes the folded characters of some kinds for the brackets of a regular expression."""
    shift, kind = _columns()
    found = np.flatnonzero(np.isin(kind, kinds) & (shift == 0))
    runs = np.split(found, np.flatnonzero(np.diff(found) > 1) + 1)
    return "".join(f"{re.escape(chr(run[0]))}-{re.escape(chr(run[-1]))}" for run in runs)


@functools.cache
def _pieces() -> re.Pattern:
    marks, spaceless = character_class(MARK), character_class(SPACELESS)
    return re.compile(f"(?P<spaceless>(?:[{spaceless}][{marks}]*)+)|[^{spaceless}]+")


@functools.cache
def _units() -> re.Pattern:
    return re.compile(f".[{character_class(MARK)}]*", re.DOTALL)


def single_characters(word: str) -> list[str]:
    """Cuts a folded word before and after every character of a script without spaces."""
    cut: list[str] = []
    for piece in _pieces().finditer(word):
        cut += _units().findall(piece[0]) if piece["spaceless"] else [piece[0]]
    return cut


def bigrams(word: str) -> list[str]:
    """Cuts such scripts into pairs of neighbouring characters; a lone one stays alone."""
    cut: list[str] = []
    for piece in _pieces().finditer(word):
        units = _units().findall(piece[0]) if piece["spaceless"] else [piece[0]]
        pairs = ["".join(pair) for pair in zip(units, units[1:], strict=False)]
        cut += pairs or units
    return cut


@functools.cache
def _words() -> re.Pattern:
    letters, marks = character_class(LETTER, SPACELESS), character_class(MARK)
    return re.compile(f"(?:[{letters}][{marks}]*)+")


def words_to_search(text: str) -> list[str]:
    """Cuts a text into folded words for retrieval: runs of letters and digits, or bigrams."""
    if text.isascii():
        return re.findall("[0-9a-z]+", text.lower())
    return [part for word in _words().findall(fold_text(text)) for part in bigrams(word)]
