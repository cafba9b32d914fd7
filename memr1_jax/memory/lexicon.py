"""Builds the embedders on the host: words, stems and weights from a tokenizer and sample texts."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.memory.embedder import HashedWords, StaticVectors
from memr1_jax.text.byte_table import build_byte_table

# Function words and the words with which questions ask; of the closed classes of English.
STOP_WORDS = frozenset(
    "a about all also am an and any are as at be because been being but by can could d did do does "
    "doing for from had has have having he her hers him his how i if in into is it its just ll m "
    "may me might my no not of on or our ours re s shall she should so some such t than that the "
    "their theirs them then there these they this those to too up us ve very was we were what when "
    "where which who whom whose why will with would you your yours".split()
)

_BASE = 16777619  # the prime of FNV-1a; any odd number with spread bits does
_CAP=4.0
_PIVOT=2.0
_WORD = re.compile(rb"[0-9A-Za-z\x80-\xff]+")


def build_tfidf(
    tokenizer, vocab_size: int, texts: Sequence[str], features: int = 1024
) -> HashedWords:
    """Builds the TF-IDF embedder of a tokenizer.

    Args:
        tokenizer: a fast tokenizer of Hugging Face.
        vocab_size: V, at least the tokenizer's size.
        texts: documents for the document frequencies, such as the turns of the training dialogues.
        features: width E of the vectors.

    Returns:
        An embedder for `embed`, as NumPy arrays.

    Raises:
        UserError: if the tokenizer is of a kind whose bytes cannot be read.
    """
    table = build_byte_table(tokenizer, vocab_size)
    spelled = [row[:n].tobytes() for row, n in zip(table.bytes, table.length, strict=True)]
    documents = [[_stem(word) for word in _words(text)] for text in texts]
    frequency = Counter(stem for document in documents for stem in set(document))
    words = {word for text in texts for word in _words(text)}
    words |= {word for piece in spelled for word in _words(piece)}
    hashes = {_hash(word): word for word in sorted(words)}
    ordered = sorted(hashes)

    def weight(word: bytes) -> float:
        if word.decode("utf-8", "ignore") in STOP_WORDS:
            return 0.0
        return inverse_frequency(frequency[_stem(word)])

    def inverse_frequency(count: int) -> float:
        return min(float(np.log((len(texts) + 1) / (count + 0.5))), _CAP)

    squares = [sum((inverse_frequency(frequency[s])*(1+np.log(c)))**2 for s,c in Counter(_stem(w) for w in _words(t) if w.decode("utf-8","ignore") not in STOP_WORDS).items()) for t in texts]

    opens, closes, piece, power = zip(*map(_piece, spelled), strict=True)
    return HashedWords(
        piece=np.array(piece, np.uint32),
        power=np.array(power, np.uint32),
        opens=np.array(opens, bool),
        closes=np.array(closes, bool),
        word=np.array(ordered, np.uint32),
        stem=np.array([_hash(_stem(hashes[h])) for h in ordered], np.uint32),
        weight=np.array([weight(hashes[h]) for h in ordered], np.float32),
        unknown=np.float32(inverse_frequency(0)),
        pivot=np.float32(_PIVOT * np.mean(squares)),
        features=features,
    )


def build_static(tokenizer, vocab_size: int, weights: Path, words: Path) -> StaticVectors:
    """Builds static vectors from the weights of WordLlama (github.com/dleemiller/WordLlama).

    The row of a token is the mean of the rows of the WordLlama tokens that spell the same text.

    Args:
        tokenizer: a fast tokenizer of Hugging Face.
        vocab_size: V, at least the tokenizer's size.
        weights: the safetensors file with one matrix, a row for each WordLlama token.
        words: the tokenizer JSON that belongs to it.

    Raises:
        UserError: if a file is missing or not what it should be.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    try:
        (matrix,) = load_file(weights).values()
        reader = Tokenizer.from_file(str(words))
    except Exception as error:
        raise UserError(
            f"The static vectors could not be read from {weights} and {words} ({error}). "
            "Give the safetensors file and the tokenizer JSON of the wordllama package."
        ) from error
    table = build_byte_table(tokenizer, vocab_size)
    spelled = [row[:n].tobytes() for row, n in zip(table.bytes, table.length, strict=True)]
    texts = [piece.decode("utf-8", "ignore").strip() for piece in spelled]
    rows = np.zeros((vocab_size, matrix.shape[1]), np.float32)
    for row, encoding in enumerate(reader.encode_batch(texts, add_special_tokens=False)):
        if encoding.ids:
            rows[row] = matrix[encoding.ids].astype(np.float32).mean(axis=0)
    return StaticVectors(table=rows)


def _words(text: str | bytes) -> list[bytes]:
    text = text.encode() if isinstance(text, str) else text
    return _WORD.findall(text.lower())


@functools.cache
def _stem(word: bytes) -> bytes:
    from nltk.stem import PorterStemmer

    return PorterStemmer().stem(word.decode("utf-8", "replace")).encode()


def _hash(word: bytes) -> int:
    value = 0
    for byte in word:
        value = (value * _BASE + byte + 1) % 2**32
    return value


def _piece(token: bytes) -> tuple[bool, bool, int, int]:
    """Whether a token opens a word, whether it closes it, and its hash and power."""
    matches = list(_WORD.finditer(token.lower()))
    if not matches:
        return True, True, 0, 1
    match = matches[0]
    opens, closes = match.start() > 0, match.end() < len(token)
    return opens, closes, _hash(match.group()), pow(_BASE, len(match.group()), 2**32)
