"""Embedding on the device: the tokens of a text become a vector, with no model to run.

Two embedders share one function. `HashedWords` is TF-IDF over word stems: tokens cut words in
pieces, and differently in different places, so the bytes of a word are hashed across its pieces and
the hash is looked up in a lexicon that was stemmed and weighted on the host. `StaticVectors` sums a
row per token of vectors distilled from a sentence encoder. `Concatenation` joins two embedders.

Vectors lie inside the unit ball: a sum v becomes v / sqrt(|v|² + pivot). At pivot 0 this is the
unit vector and the inner product is the cosine, which favours short memories, above all those that
say little but a name that the query says too. The pivot, a small multiple of the mean |v|², damps
short texts (pivoted length normalisation: Singhal, Buckley and Mitra, SIGIR 1996).
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp

from memr1_jax.text.folding import UnicodeTables, scramble
from memr1_jax.text.segments import lay_out
from memr1_jax.text.word_hashes import hash_words


@flax.struct.dataclass
class HashedWords:
    """Hashed TF-IDF (feature hashing: arXiv 0902.2206) over the stems of the words of a text.

    A table of token rows [V, E] would be this function for a vocabulary of whole words, at 0.3 GB
    for 152k tokens and 512 features. Here a token costs its bytes and 8 more, and a word that is
    split in pieces has the same feature as one that is not. In scripts without spaces pairs of
    neighbouring characters take the place of words.
    """

    spelling: jax.Array  # [C] uint8, the bytes of all tokens one after another
    start: jax.Array  # [V] int32, where those of a token begin
    size: jax.Array  # [V] int32, how many they are
    unicode: UnicodeTables
    word: jax.Array  # [A] uint32, sorted hashes of the known words
    stem: jax.Array  # [A] uint32, hash of the word's stem
    weight: jax.Array  # [A] float32, inverse document frequency; stop words 0
    unknown: jax.Array  # [] float32, weight of all other words
    pivot: jax.Array  # [] float32
    features: int = flax.struct.field(pytree_node=False)  # E


@flax.struct.dataclass
class StaticVectors:
    """A vector for each token."""

    table: jax.Array  # [V, E] float32
    pivot: jax.Array  # [] float32


@flax.struct.dataclass
class Concatenation:
    """Two embedders side by side: similarity is `mix` of the first, 1 - `mix` of the second."""

    first: Embedder
    second: Embedder
    mix: jax.Array  # [] float32 in [0, 1]


Embedder = HashedWords | StaticVectors | Concatenation


# Room for the bytes and words of a text, on average; the rest is left out of its vector.
_BYTES_PER_TOKEN = 8
_WORDS_PER_TOKEN = 2


@functools.singledispatch
def embed(embedder: Embedder, tokens: jax.Array, length: jax.Array) -> jax.Array:
    """Embeds a text: tokens [W] int32 and length [] give a vector [E] float32 in the unit ball.

    A text without a known feature, such as the empty one, gives the zero vector. Tokens after
    `length` are ignored. Map with `vmap` over texts; pass the embedder as an argument of `jit`.
    """
    raise TypeError(f"{type(embedder).__name__} is not an embedder")


@embed.register(HashedWords)
@jax.jit
def _(embedder, tokens, length):
    size = jnp.where(jnp.arange(tokens.shape[0]) < length, embedder.size[tokens], 0)
    capacity = _BYTES_PER_TOKEN * tokens.shape[0]
    token, offset, total = lay_out(size, capacity)
    inside = jnp.arange(capacity) < total
    text = embedder.spelling[jnp.where(inside, embedder.start[tokens[token]] + offset, 0)]
    word = hash_words(embedder.unicode, text, total, _WORDS_PER_TOKEN * tokens.shape[0])
    counts = word != 0

    row = jnp.minimum(jnp.searchsorted(embedder.word, word), embedder.word.shape[0] - 1)
    known = embedder.word[row] == word
    stem = jnp.where(known, embedder.stem[row], word)
    weight = jnp.where(known, embedder.weight[row], embedder.unknown) * counts

    frequency = jnp.sum((stem[:, None] == stem[None, :]) & counts[None, :], axis=1)
    frequency = jnp.maximum(frequency, 1).astype(jnp.float32)
    weight = weight * (1 + jnp.log(frequency)) / frequency  # each repetition bears its share
    mixed = scramble(stem)
    column = (mixed % embedder.features).astype(jnp.int32)
    sign = jnp.where(mixed >> 31 == 0, 1.0, -1.0)
    return _shorten(jnp.zeros(embedder.features).at[column].add(sign * weight), embedder.pivot)


@embed.register(StaticVectors)
@jax.jit
def _(embedder, tokens, length):
    present = jnp.arange(tokens.shape[0]) < length
    rows = jnp.where(present[:, None], embedder.table[tokens], 0)
    return _shorten(jnp.sum(rows, axis=0), embedder.pivot)


@embed.register(Concatenation)
@jax.jit
def _(embedder, tokens, length):
    first = embed(embedder.first, tokens, length) * jnp.sqrt(embedder.mix)
    second = embed(embedder.second, tokens, length) * jnp.sqrt(1 - embedder.mix)
    return jnp.concatenate([first, second])


def concatenate_embedders(first: Embedder, second: Embedder, mix: float = 0.8) -> Concatenation:
    """Joins two embedders; `mix` is the share of the first in the similarity, from 0 to 1."""
    return Concatenation(first=first, second=second, mix=jnp.float32(mix))


def embedding_width(embedder: Embedder) -> int:
    """Returns E, the length of the vectors that `embed` gives."""
    tokens, length = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    return jax.eval_shape(embed, embedder, tokens, length).shape[0]


def _shorten(vector, pivot):
    square = jnp.sum(jnp.square(vector)) + pivot
    return vector * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
