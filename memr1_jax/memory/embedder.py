"""Embedding on the device: tokens of a text become a unit vector, with no model to run.

Two embedders share one function. `HashedWords` is TF-IDF over word stems: tokens cut words in
pieces, and differently in different places, so the bytes of a word are hashed across its pieces and
the hash is looked up in a lexicon that was stemmed and weighted on the host. `StaticVectors` sums a
row per token of vectors distilled from a sentence encoder. `Concatenation` joins two embedders.
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class HashedWords:
    """Hashed TF-IDF (feature hashing: arXiv 0902.2206) over the stems of the words of a text.

    A dense table [V, E] of token rows would be this function for a vocabulary of whole words, at
    0.6 GB for 152k tokens; here a word costs 12 bytes, and one that is split counts as one word.
    """

    piece: jax.Array  # [V] uint32, polynomial hash of the token's word bytes; 0: none
    power: jax.Array  # [V] uint32, the base to the number of these bytes
    opens: jax.Array  # [V] bool, the token does not continue the word before it
    closes: jax.Array  # [V] bool, the token cannot be continued
    word: jax.Array  # [A] uint32, sorted hashes of the known words
    stem: jax.Array  # [A] uint32, hash of the word's stem
    weight: jax.Array  # [A] float32, inverse document frequency; stop words 0
    unknown: jax.Array  # [] float32, weight of all other words
    pivot: jax.Array  # [] float32, squared norm at which a text's vector gets length sqrt(1/2)
    features: int = flax.struct.field(pytree_node=False)  # E


@flax.struct.dataclass
class StaticVectors:
    """A vector for each token: `table [V, E]` float32."""

    table: jax.Array


@flax.struct.dataclass
class Concatenation:
    """Two embedders side by side; the cosine is `mix` of the first and 1 - `mix` of the second."""

    first: Embedder
    second: Embedder
    mix: jax.Array  # [] float32 in [0, 1]


Embedder = HashedWords | StaticVectors | Concatenation


@functools.singledispatch
def embed(embedder: Embedder, tokens: jax.Array, length: jax.Array) -> jax.Array:
    """Embeds a text: tokens [W] int32 and length [] give a unit vector [E] float32.

    A text without a known feature, such as the empty one, gives the zero vector, which is equally
    far from everything. Tokens after `length` are ignored. Map with `vmap` over texts.
    """
    raise TypeError(f"no embedder: {type(embedder).__name__}")


@embed.register(HashedWords)
def _(embedder, tokens, length):
    present = jnp.arange(tokens.shape[0]) < length
    opens = embedder.opens[tokens] | jnp.roll(embedder.closes[tokens], 1)
    # Horner's rule over the bytes of a word; a power of 0 forgets what came before.
    pieces = jnp.where(present, embedder.piece[tokens], 0)
    powers = jnp.where(opens, 0, embedder.power[tokens])
    word, _ = jax.lax.associative_scan(
        lambda a, b: (a[0] * b[1] + b[0], a[1] * b[1]), (pieces, powers)
    )
    last = jnp.roll(opens | ~present, -1).at[-1].set(True)
    counts = present & last & (word != 0)

    row = jnp.minimum(jnp.searchsorted(embedder.word, word), embedder.word.shape[0] - 1)
    known = embedder.word[row] == word
    stem = jnp.where(known, embedder.stem[row], word)
    weight = jnp.where(known, embedder.weight[row], embedder.unknown) * counts

    repeats = jnp.sum((stem[:, None] == stem[None, :]) & counts[None, :], axis=1)
    repeats = jnp.maximum(repeats, 1).astype(jnp.float32)
    weight = weight * (1 + jnp.log(repeats)) / repeats  # sublinear term frequency
    mixed = _scramble(stem)
    sign = jnp.where(mixed >> 31 == 0, 1.0, -1.0)
    column = (mixed % embedder.features).astype(jnp.int32)
    return _normalise(jnp.zeros(embedder.features).at[column].add(sign * weight), embedder.pivot)


@embed.register(StaticVectors)
def _(embedder, tokens, length):
    present = jnp.arange(tokens.shape[0]) < length
    return _normalise(jnp.sum(embedder.table[tokens] * present[:, None], axis=0))


@embed.register(Concatenation)
def _(embedder, tokens, length):
    parts = embed(embedder.first, tokens, length), embed(embedder.second, tokens, length)
    shares = jnp.sqrt(embedder.mix), jnp.sqrt(1 - embedder.mix)
    return jnp.concatenate([share * part for share, part in zip(shares, parts, strict=True)])


def embedding_width(embedder: Embedder) -> int:
    """Returns E, the length of the vectors that `embed` gives."""
    text = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    return jax.eval_shape(lambda tokens, length: embed(embedder, tokens, length), *text).shape[0]


def concatenate_embedders(first: Embedder, second: Embedder, mix: float) -> Concatenation:
    """Joins two embedders; `mix` is the share of the first in the cosine, from 0 to 1."""
    return Concatenation(first=first, second=second, mix=jnp.float32(mix))


def _scramble(value):
    """Spreads the bits of a uint32 (the finaliser of MurmurHash3, public domain)."""
    value = (value ^ (value >> 16)) * jnp.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * jnp.uint32(0xC2B2AE35)
    return value ^ (value >> 16)


def _normalise(vector, pivot=0.0):
    square = jnp.sum(jnp.square(vector)) + pivot
    return vector * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
