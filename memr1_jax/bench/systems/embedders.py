"""From texts to vectors: the project's embedders over a tokenizer, and a cache of vectors."""

import collections
from collections.abc import Sequence

import jax
import numpy as np

from memr1_jax.bench.systems.text_bank import Embed
from memr1_jax.memory.embedder import Embedder, embed, embedding_width
from memr1_jax.models.padding import padded_batches
from memr1_jax.text.plain import one_line, plain_encoder

_ROWS = 32  # texts of a batch
_WIDTHS = (16, 64, 256, 1024)
_REMEMBERED = 200_000  # vectors kept


def token_embedder(tokenizer, embedder: Embedder, most_tokens: int = 512) -> Embed:
    """Embeds texts as the banks on the device are embedded: tokens after one space.

    Args:
      tokenizer: a `transformers` tokenizer, the one that the embedder was built for.
      embedder: see `memory.embedder`.
      most_tokens: how much of a longer text is read.
    """
    encode = plain_encoder(tokenizer)
    embedder = jax.device_put(embedder)
    width = embedding_width(embedder)
    widths = [size for size in _WIDTHS if size < most_tokens] + [most_tokens]

    def embed_texts(texts: Sequence[str]) -> np.ndarray:
        rows = [encode(" " + one_line(text))[:most_tokens] for text in texts]
        vectors = np.zeros((len(rows), width), np.float32)
        for places, tokens, length in padded_batches(rows, widths, _ROWS):
            vectors[places] = np.asarray(_embed_rows(embedder, tokens, length))[: len(places)]
        return vectors

    return embed_texts


@jax.jit
def _embed_rows(embedder, tokens, length):
    return jax.vmap(embed, (None, 0, 0))(embedder, tokens, length)


def remembering(embed_texts: Embed, most: int = _REMEMBERED) -> Embed:
    """Caches an embedder, so that each text is embedded once; drops the least recent vectors."""
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
