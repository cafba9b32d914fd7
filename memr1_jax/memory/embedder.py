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


@flax.struct.dataclass
class HashedWords:
    """Hashed TF-IDF (feature hashing: arXiv 0902.2206) over the stems of the words of a text.

    A table of token rows [V, E] would be this function for a vocabulary of whole words, at 0.3 GB
    for 152k tokens and 512 features. Here a token costs 10 bytes and a known word 12, and a word
    that is split in pieces has the same feature as one that is not.
    """

    piece: jax.Array  # [V] uint32, polynomial hash of the token's word bytes; 0: none
    power: jax.Array  # [V] uint32, the base to the number of these bytes
    opens: jax.Array  # [V] bool, the token does not continue the word before it
    closes: jax.Array  # [V] bool, the token cannot be continued
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
    """Two embedders side by side: similarity is `mix` of the first's, 1 - `mix` of the second's."""

    first: Embedder
    second: Embedder
    mix: jax.Array  # [] float32 in [0, 1]


Embedder = HashedWords | StaticVectors | Concatenation


@functools.singledispatch
def embed(embedder: Embedder, tokens: jax.Array, length: jax.Array) -> jax.Array:
    """Embeds a text: tokens [W] int32 and length [] give a vector [E] float32 in the unit ball.

    A text without a known feature, such as the empty one, gives the zero vector. Tokens after
    `length` are ignored. Map with `vmap` over texts; pass the embedder as an argument of `jit`.
    """
    raise TypeError(f"{type(embedder).__name__} is not an embedder")


@embed.register(HashedWords)
def _(embedder, tokens, length):
    present = jnp.arange(tokens.shape[0]) < length
    opens = embedder.opens[tokens] | jnp.roll(embedder.closes[tokens], 1)
    # Horner's rule over the bytes of a word; a power of 0 forgets the word before.
    pieces = embedder.piece[tokens], jnp.where(opens, 0, embedder.power[tokens])
    word, _ = jax.lax.associative_scan(
        lambda left, right: (left[0] * right[1] + right[0], left[1] * right[1]), pieces
    )
    complete = jnp.roll(opens | ~present, -1).at[-1].set(True)
    counts = present & complete & (word != 0)

    row = jnp.minimum(jnp.searchsorted(embedder.word, word), embedder.word.shape[0] - 1)
    known = embedder.word[row] == word
    stem = jnp.where(known, embedder.stem[row], word)
    weight = jnp.where(known, embedder.weight[row], embedder.unknown) * counts

    frequency = jnp.sum((stem[:, None] == stem[None, :]) & counts[None, :], axis=1)
    frequency = jnp.maximum(frequency, 1).astype(jnp.float32)
    weight = weight * (1 + jnp.log(frequency)) / frequency  # each repetition bears its share
    mixed = _scramble(stem)
    column = (mixed % embedder.features).astype(jnp.int32)
    sign = jnp.where(mixed >> 31 == 0, 1.0, -1.0)
    return _shorten(jnp.zeros(embedder.features).at[column].add(sign * weight), embedder.pivot)


@embed.register(StaticVectors)
def _(embedder, tokens, length):
    present = jnp.arange(tokens.shape[0]) < length
    rows = jnp.where(present[:, None], embedder.table[tokens], 0)
    return _shorten(jnp.sum(rows, axis=0), embedder.pivot)


@embed.register(Concatenation)
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


def _scramble(value):
    """Spreads the bits of a uint32 (the finaliser of MurmurHash3, public domain)."""
    value = (value ^ (value >> 16)) * jnp.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * jnp.uint32(0xC2B2AE35)
    return value ^ (value >> 16)


def _shorten(vector, pivot):
    square = jnp.sum(jnp.square(vector)) + pivot
    return vector * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
