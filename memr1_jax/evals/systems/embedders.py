"""From texts to vectors: the project's embedders over a tokenizer, and a memory for vectors."""

import collections
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.evals.batching import bucket
from memr1_jax.evals.systems.bank import Embed
from memr1_jax.memory.embedder import Embedder, embed

_ROWS = 64  # texts of a batch
_REMEMBERED = 200_000  # vectors kept


def token_embedder(tokenizer, embedder: Embedder, most_tokens: int = 512) -> Embed:
    """Embeds texts as the banks on the device are embedded: tokens after one space.

    Args:
      tokenizer: a `transformers` tokenizer, the one that the embedder was built for.
      embedder: see `memory.embedder`.
      most_tokens: what of a longer text is read.
    """
    embedder = jax.tree.map(jnp.asarray, embedder)

    def embed_texts(texts: Sequence[str]) -> np.ndarray:
        rows = [
            tokenizer.encode(f" {text.strip()}", add_special_tokens=False)[:most_tokens]
            for text in texts
        ]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        parts = []
        for start in range(0, len(order), _ROWS):
            part = [rows[row] for row in order[start : start + _ROWS]]
            count = 1 if len(part) == 1 else _ROWS  # a query alone need not wait for padding
            tokens = np.zeros((count, bucket(len(part[-1]))), np.int32)
            length = np.zeros(count, np.int32)
            for place, row in enumerate(part):
                tokens[place, : len(row)] = row
                length[place] = len(row)
            parts.append(np.asarray(_embed_rows(embedder, tokens, length))[: len(part)])
        vectors = np.concatenate(parts)
        return vectors[np.argsort(order)]

    return embed_texts


@jax.jit
def _embed_rows(embedder, tokens, length):
    return jax.vmap(embed, (None, 0, 0))(embedder, tokens, length)


def remembering(embed_texts: Embed, most: int = _REMEMBERED) -> Embed:
    """The same function, which computes the vector of a text once; the least recent are dropped."""
    known: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()

    def embed_known(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed_texts(new), strict=True))
        for text in texts:
            known.move_to_end(text)
        vectors = np.stack([known[text] for text in texts])
        while len(known) > most:
            known.popitem(last=False)
        return vectors

    return embed_known
