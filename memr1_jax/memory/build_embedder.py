"""Builds the embedders on the host, from a tokenizer, sample texts and files of vectors."""

import functools
import math
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from memr1_jax.arrays import on_host
from memr1_jax.errors import UserError
from memr1_jax.memory.embedder import HashedWords, StaticVectors
from memr1_jax.text.byte_table import build_byte_table
from memr1_jax.text.folding import unicode_tables, words_to_search
from memr1_jax.text.plain import whole
from memr1_jax.text.word_hashes import hash_word

# The closed classes of English, with the pieces that apostrophes leave, and question words.
STOP_WORDS = frozenset(
    "a about all also am an and any are as at be because been being but by can could d did do does "
    "doing for from had has have having he her hers him his how i if in into is it its just ll m "
    "may me might my no not of on or our ours re s shall she should so some such t than that the "
    "their theirs them then there these they this those to too up us ve very was we were what when "
    "where which who whom whose why will with would you your yours".split()
)

# A word that the sample texts lack may be rare, or the name that every memory of another dialogue
# holds. In between lies the cap of the inverse document frequency, in nats: 1 text in 55.
_CAP = 4.0
_PIVOT = 2.0  # in units of the mean squared norm of the sample texts


def build_tfidf(
    tokenizer, vocab_size: int, texts: Sequence[str], features: int = 512
) -> HashedWords:
    """Builds the TF-IDF embedder of a tokenizer, as NumPy arrays.

    Known words are those of the texts and of single tokens; they are stemmed by Porter's algorithm
    and weighted by capped inverse document frequency. Other words are features as they stand, so a
    small vocabulary calls for more texts. Characters are folded and words are cut as in
    `text.folding`.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
        vocab_size: V, at least the tokenizer's size.
        texts: sample texts for the document frequencies, such as the turns of training dialogues.
        features: width E of the vectors.

    Raises:
        UserError: there are no texts, or the tokenizer's bytes cannot be read.
    """
    _require(texts)
    stemmed = [[_stem(word) for word in words_to_search(text)] for text in texts]
    documents = Counter(stem for stems in stemmed for stem in set(stems))

    def weight(stem: str) -> float:
        if stem in _stop_stems():
            return 0.0
        return min(math.log((len(texts) + 1) / (documents[stem] + 0.5)), _CAP)

    squares = [
        sum((weight(stem) * (1 + math.log(n))) ** 2 for stem, n in Counter(stems).items())
        for stems in stemmed
    ]
    spelled = _spell(tokenizer, vocab_size)
    size = np.array([len(token) for token in spelled], np.int32)
    tokens = [token.decode("utf-8", "replace") for token in spelled]
    sources = [*STOP_WORDS, *texts, *tokens]
    words = {hash_word(word): word for text in sources for word in words_to_search(text)}
    hashes = sorted(words)
    stems = [_stem(words[value]) for value in hashes]
    return on_host(
        HashedWords,
        spelling=np.frombuffer(b"".join(spelled) or b" ", np.uint8),
        start=(np.cumsum(size) - size).astype(np.int32),
        size=size,
        unicode=unicode_tables(),
        word=np.array(hashes, np.uint32),
        stem=np.array([hash_word(stem) for stem in stems], np.uint32),
        weight=np.array([weight(stem) for stem in stems], np.float32),
        unknown=np.float32(weight("")),
        pivot=np.float32(_PIVOT * np.mean(squares)),
        features=features,
    )


def build_static(
    tokenizer,
    vocab_size: int,
    texts: Sequence[str],
    vectors_file: str | os.PathLike,
    tokenizer_file: str | os.PathLike,
) -> StaticVectors:
    """Builds static vectors for a tokenizer from those of WordLlama (on PyPI), as NumPy arrays.

    The row of a token is the mean of the rows of the WordLlama tokens that spell the same text.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
        vocab_size: V, at least the tokenizer's size.
        texts: sample texts for the typical length of a vector.
        vectors_file: a safetensors file that holds one matrix, a row for each WordLlama token.
        tokenizer_file: the tokenizer JSON that belongs to the matrix.

    Raises:
        UserError: there are no texts, a file cannot be read, or the tokenizer's bytes cannot.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    _require(texts)
    try:
        (matrix,) = load_file(vectors_file).values()
        reader = Tokenizer.from_file(os.fspath(tokenizer_file))
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise UserError(
            f"The static vectors in {vectors_file} with the tokenizer {tokenizer_file} cannot be "
            f"read ({error}). Give the two files of the wordllama package."
        ) from error
    table = np.zeros((vocab_size, matrix.shape[1]), np.float32)
    spelled = [token.decode("utf-8", "ignore").strip() for token in _spell(tokenizer, vocab_size)]
    for row, read in zip(
        table, reader.encode_batch(spelled, add_special_tokens=False), strict=True
    ):
        if read.ids:
            row[:] = matrix[read.ids].astype(np.float32).mean(axis=0)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    encoded = backend.encode_batch(list(map(whole, texts)), add_special_tokens=False)
    squares = [np.square(table[text.ids].sum(axis=0)).sum() for text in encoded]
    return on_host(StaticVectors, table=table, pivot=np.float32(_PIVOT * np.mean(squares)))


def _require(texts: Sequence[str]) -> None:
    if not texts:
        raise UserError(
            "An embedder needs sample texts for its weights and was given none. Give it the turns "
            "of the training conversations."
        )


def _spell(tokenizer, vocab_size: int) -> list[bytes]:
    table = build_byte_table(tokenizer, vocab_size)
    return [row[:n].tobytes() for row, n in zip(table.bytes, table.length, strict=True)]


@functools.cache
def _stem(word: str) -> str:
    return _stemmer().stem(word)


@functools.cache
def _stemmer():
    from nltk.stem import PorterStemmer

    return PorterStemmer()


@functools.cache
def _stop_stems() -> frozenset[str]:
    return frozenset(_stem(word) for word in STOP_WORDS)
